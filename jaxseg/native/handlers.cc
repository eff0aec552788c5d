// The functions that XLA calls. `convolution.py` checks the shapes.

#include "convolve.h"
#include "kernel_gradient.h"
#include "winograd.h"
#include "winograd_gradient.h"

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32, 4>;
using Result = ffi::Result<Floats>;

namespace {

jaxseg::Shape shape(const Floats& images, int64_t out) {
  const auto sizes = images.dimensions();
  return {sizes[0], sizes[1], sizes[2], sizes[3], out};
}

// Runs the work, and reports exhausted memory as an error of XLA.
template <typename Work>
ffi::Error guarded(Work work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "Out of memory while allocating room for a convolution.");
  }
  return ffi::Error::Success();
}

ffi::Error convolve(ffi::ThreadPool pool, Floats images, Floats kernel, bool turned,
                    Result result) {
  return guarded([&] {
    const jaxseg::Shape s = shape(images, result->dimensions()[3]);
    const auto run = jaxseg::suits_winograd(s) ? jaxseg::winograd : jaxseg::convolve;
    run(pool, images.typed_data(), kernel.typed_data(), result->typed_data(), s, turned);
  });
}

ffi::Error kernel_gradient(ffi::ThreadPool pool, Floats images, Floats cotangents, Result result) {
  return guarded([&] {
    const jaxseg::Shape s = shape(images, result->dimensions()[3]);
    const auto run = jaxseg::suits_winograd(s) ? jaxseg::winograd_kernel_gradient
                                               : jaxseg::kernel_gradient;
    run(pool, images.typed_data(), cotangents.typed_data(), result->typed_data(), s);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxseg_convolve, convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Attr<bool>("turned")
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxseg_kernel_gradient, kernel_gradient,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
