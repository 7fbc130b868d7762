// Runs CUDA kernels on the CPU: just enough of CUDA C++ for matting_laplacian.cu, with a real
// thread for each CUDA thread and real barriers for __syncthreads and the shuffles of a warp, so
// that ThreadSanitizer sees what a GPU would race on. Blocks run one after another, so that one
// array can stand for the shared memory of a block.
#pragma once

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __launch_bounds__(...)

struct Dim {
    unsigned x = 0;
};

inline thread_local Dim threadIdx, blockIdx;
inline thread_local std::barrier<>* block_barrier = nullptr;

inline void __syncthreads() {
    block_barrier->arrive_and_wait();
}

// Of a block of 32 threads, the only one that shuffles.
struct Warp {
    std::barrier<> barrier{32};
    float lanes[32];
};
inline thread_local Warp* warp_of_thread = nullptr;

inline float shuffle(float value, int source) {
    Warp& warp = *warp_of_thread;
    warp.lanes[threadIdx.x] = value;
    warp.barrier.arrive_and_wait();
    const float result = source >= 0 && source < 32 ? warp.lanes[source] : value;
    warp.barrier.arrive_and_wait();
    return result;
}

inline float __shfl_up_sync(unsigned, float value, int distance) {
    return shuffle(value, static_cast<int>(threadIdx.x) - distance);
}

inline float __shfl_down_sync(unsigned, float value, int distance) {
    return shuffle(value, static_cast<int>(threadIdx.x) + distance);
}

using std::max;
using std::min;
using std::sqrt;

// Like cuLaunchKernel: arguments[i] points to the i-th argument, whose type the kernel knows.
template <typename... Arguments, std::size_t... I>
void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<Arguments>*>(arguments[I])...);
}

template <auto kernel>
void launch(unsigned blocks, unsigned threads_of_block, void** arguments) {
    const auto invoke = [arguments]<typename... A>(void (*function)(A...)) {
        call(function, arguments, std::index_sequence_for<A...>());
    };
    std::barrier<> barrier(threads_of_block);
    Warp warp;
    const auto run_thread = [&](unsigned thread) {
        threadIdx = {thread};
        block_barrier = &barrier;
        warp_of_thread = &warp;
        for (unsigned block = 0; block < blocks; ++block) {
            blockIdx = {block};
            invoke(kernel);
            // Threads that return early must not enter the next block while others use this one's
            // memory.
            barrier.arrive_and_wait();
        }
    };
    std::vector<std::jthread> threads;
    for (unsigned thread = 0; thread < threads_of_block; ++thread)
        threads.emplace_back(run_thread, thread);
}
