// The kernels of matting_laplacian.cu as a shared library for the CPU; tests/test_cuda_source.py
// calls it. Compile with -DBLOCK_COLUMNS= and -DBLOCK_ROWS= and the directory of the .cu file on
// the include path.
#include "cuda_shim.h"

#include <map>
#include <string>

#include "matting_laplacian.cu"

namespace {

using Launcher = void (*)(Dim grid, Dim block, void** arguments);

template <typename Scalar, int C>
void add_kernels(std::map<std::string, Launcher>& kernels, const std::string& parameters) {
    kernels["window_statistics<" + parameters + ">"] = launch<window_statistics<Scalar, C>>;
    kernels["window_models<" + parameters + ">"] = launch<window_models<Scalar, C>>;
    kernels["sum_windows<" + parameters + ", false>"] = launch<sum_windows<Scalar, C, false>>;
    kernels["sum_windows<" + parameters + ", true>"] = launch<sum_windows<Scalar, C, true>>;
}

std::map<std::string, Launcher> all_kernels() {
    std::map<std::string, Launcher> kernels;
    add_kernels<float, 1>(kernels, "float, 1");
    add_kernels<float, 3>(kernels, "float, 3");
    add_kernels<double, 1>(kernels, "double, 1");
    add_kernels<double, 3>(kernels, "double, 3");
    return kernels;
}

}  // namespace

// 0, or 1 where there is no kernel of that name.
extern "C" int launch_kernel(const char* name, unsigned grid_x, unsigned grid_y, void** arguments) {
    static const std::map<std::string, Launcher> kernels = all_kernels();
    const auto found = kernels.find(name);
    if (found == kernels.end()) return 1;
    found->second({grid_x, grid_y}, {BLOCK_COLUMNS, BLOCK_ROWS}, arguments);
    return 0;
}
