// The kernels of matting_laplacian.cu as a shared library for the CPU; tests/test_cuda_source.py
// calls it. Compile with the options of ops/_cuda.py and the directory of the .cu file on the
// include path.
#include "cuda_shim.h"

#include <map>
#include <string>

#include "kernels.cu"

// What __shared__ declares in the kernels, and what must not be touched behind it.
constexpr unsigned SHARED_VALUES = 64 * 1024 / sizeof(double), GUARD_VALUES = 1024;
double shared_memory[SHARED_VALUES + GUARD_VALUES];

namespace {

using Launcher = void (*)(unsigned blocks, unsigned threads, void** arguments);

template <typename Scalar, int C>
void add_kernels(std::map<std::string, Launcher>& kernels, const std::string& parameters) {
    kernels["window_statistics<" + parameters + ">"] = launch<window_statistics<Scalar, C>>;
    kernels["window_coefficients<" + parameters + ">"] = launch<window_coefficients<Scalar, C>>;
    kernels["sum_windows<" + parameters + ", PRODUCT>"] = launch<sum_windows<Scalar, C, PRODUCT>>;
    kernels["sum_windows<" + parameters + ", FIT>"] = launch<sum_windows<Scalar, C, FIT>>;
    kernels["sum_windows<" + parameters + ", GUIDED_FILTER>"] =
        launch<sum_windows<Scalar, C, GUIDED_FILTER>>;
    kernels["sum_windows<" + parameters + ", COEFFICIENTS>"] = launch<sum_windows<Scalar, C, COEFFICIENTS>>;
}

template <int C, int K>
void add_fused(std::map<std::string, Launcher>& kernels, const std::string& parameters) {
    kernels["fused_radius_1<" + parameters + ", PRODUCT>"] = launch<fused_radius_1<C, K, PRODUCT>>;
    kernels["fused_radius_1<" + parameters + ", MATTING_LOSS>"] = launch<fused_radius_1<C, K, MATTING_LOSS>>;
    kernels["fused_radius_1<" + parameters + ", FIT>"] = launch<fused_radius_1<C, K, FIT>>;
    kernels["fused_radius_1<" + parameters + ", GUIDED_FILTER>"] = launch<fused_radius_1<C, K, GUIDED_FILTER>>;
}

std::map<std::string, Launcher> all_kernels() {
    std::map<std::string, Launcher> kernels;
    add_kernels<float, 1>(kernels, "float, 1");
    add_kernels<float, 3>(kernels, "float, 3");
    add_kernels<double, 1>(kernels, "double, 1");
    add_kernels<double, 3>(kernels, "double, 3");
    add_fused<1, 1>(kernels, "1, 1");
    add_fused<1, 3>(kernels, "1, 3");
    add_fused<3, 1>(kernels, "3, 1");
    add_fused<3, 3>(kernels, "3, 3");
    return kernels;
}

}  // namespace

enum { OK, NO_SUCH_KERNEL, BEYOND_SHARED_MEMORY };

// Shared memory holds no numbers at first, so that none is used before it is written.
extern "C" int launch_kernel(const char* name, unsigned blocks, unsigned threads,
                             unsigned shared_bytes, void** arguments) {
    static const std::map<std::string, Launcher> kernels = all_kernels();
    const auto found = kernels.find(name);
    if (found == kernels.end()) return NO_SUCH_KERNEL;
    unsigned char* const bytes = reinterpret_cast<unsigned char*>(shared_memory);
    std::fill(bytes, bytes + sizeof shared_memory, 0xff);
    found->second(blocks, threads, arguments);
    const bool intact = std::all_of(bytes + shared_bytes, bytes + sizeof shared_memory,
                                    [](unsigned char byte) { return byte == 0xff; });
    return intact ? OK : BEYOND_SHARED_MEMORY;
}
