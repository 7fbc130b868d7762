// The matting Laplacian of a guide image I, applied to p without the matrix.
//
//     a_k = (Σ_k + ε/|w| Id)⁻¹ cov_k(I, p)      b_k = p̄_k − a_kᵀ μ_k
//     (L p)_i = Σ_{k : i ∈ w_k} ( p_i − a_kᵀ I_i − b_k )
//
// A. Levin, D. Lischinski, Y. Weiss, "A closed-form solution to natural image matting", 2006.
// K. He, J. Sun, X. Tang, "Fast matting using large kernel matting Laplacian matrices", 2010.
//
// The windows w_k are the squares of |w| = (2r+1)² pixels inside the image; k is the centre of one.
//
// With D the number of windows that hold a pixel, all results are forms of one sum:
//
//     PRODUCT      L p
//     FIT          F p = D p − L p = Σ_k (a_kᵀ I_i + b_k), symmetric as L is
//     PROJECTION   P p = F p / D
//
// For float32 and r = 1 one kernel does it all:
//
//     radius_1            p, guide         -> L p, F p or P p
//
// Otherwise there are three,
//
//     window_statistics   guide            -> μ_k, W_k   once per guide
//     window_models       p, guide, μ, W   -> a_k, ρ_k
//     sum_windows         p, guide, a, ρ   -> L p, F p, P p, or the means of a_k and b_k
//
// with W_kᵀ W_k = (Σ_k + ε/|w| Id)⁻¹ and ρ_k = p_k − a_kᵀ I_k − b_k, what the fit leaves at k.
//
// How a block of the three works. A block takes BLOCK_ROWS rows of one image channel, a strip of columns wide.
// Sums over a window are separable: each thread first sums down one column of 2r+1 rows, then along
// 2r+1 of the columns that its row of threads has left in shared memory. The cost grows with r, not
// with r², the sums are always taken in the same order, and there are no atomics, so the bits are
// the same from run to run.
//
// Precision. Every sum is taken over differences to a pixel of the window, never over the values
// themselves: first to the centre of the column, then carried over to the centre of the window.
// Neighbours are close, so that their difference is exact or nearly so, and errors scale with the
// contrast in the window instead of with its brightness. If the centre is an outlier, cancellation
// multiplies rounding errors by |w| at most, to 2e-5 at r = 8. So float32 is enough in the two
// kernels that run for every p, and they are the ones that matter where float64 is 64 times slower.
// window_statistics runs once per guide, in float64: it factors matrices whose condition number
// reaches 1e7 at ε = 1e-7, r = 1. It leaves the factor W and not the inverse: on near-grey windows
// the inverse's entries, up to |w|/ε = 9e7, would cancel in float32; W's are their square roots.
// b_k is not formed on the way to L p: with |a_k| up to 1e3 it would cancel against a_kᵀ I_i.
// A constant p gives exactly zero.
//
// Compile with -DBLOCK_COLUMNS= and -DBLOCK_ROWS=, the shape of a thread block, from _cuda.py.

using Index = long long;  // 64 planes of 8192 x 8192 pixels are 2³² values

enum Form { PRODUCT, ENERGY, FIT, PROJECTION, MEANS };

// How many of the windows along one axis hold the pixel at `position`.
__device__ inline int count(int position, int length, int radius) {
    return min(position, length - 1 - 2 * radius) - max(position - 2 * radius, 0) + 1;
}

// L p, F p or P p at a pixel from p and L p there; `share` is 1 / windows.
template <Form FORM, typename Scalar>
__device__ inline Scalar in_form(Scalar value, Scalar product, int windows, Scalar share) {
    if constexpr (FORM == FIT) return windows * value - product;
    if constexpr (FORM == PROJECTION) return value - product * share;
    return product;
}

// Where this thread works. The grid comes from launch_geometry() in _cuda.py.
struct Site {
    Index image;
    Index plane;      // image * channels + channel
    int row, column;  // of the result
    int strip_first;  // the first column of the result that this block computes
    int strip_last;   // the last one
    bool writes;
};

// Threads past the edge repeat the last site without writing: all must reach the barriers.
__device__ inline Site this_site(int channels, int rows, int columns, int strip) {
    const int row_groups = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    // Channels vary fastest: blocks that run at the same time share the guide through the cache.
    const int channel = blockIdx.x % channels;
    const int group = blockIdx.x / channels;
    const int row = group % row_groups * BLOCK_ROWS + threadIdx.y;
    const int x = threadIdx.x;

    Site site;
    site.image = group / row_groups;
    site.plane = site.image * channels + channel;
    site.strip_first = blockIdx.y * strip;
    site.strip_last = min(site.strip_first + strip, columns) - 1;
    site.row = min(row, rows - 1);
    site.column = min(site.strip_first + x, site.strip_last);
    site.writes = row < rows && site.strip_first + x <= site.strip_last;
    return site;
}

// A separable sum. One thread calls measure(column, values) for each column that the block needs,
// those in [reach_first, reach_last]; then each thread calls merge(values) for the columns of its
// own window, [first, last], left to right. A reach wider than the block is taken in pieces.
template <typename Real, int VALUES, typename Measure, typename Merge>
__device__ inline void sweep_columns(int reach_first, int reach_last, int first, int last,
                                     Measure measure, Merge merge) {
    __shared__ Real shared[BLOCK_ROWS][VALUES][BLOCK_COLUMNS];
    auto& row = shared[threadIdx.y];
    for (int start = reach_first; start <= reach_last; start += BLOCK_COLUMNS) {
        const int column = start + static_cast<int>(threadIdx.x);
        if (column <= reach_last) {
            Real values[VALUES] = {};
            measure(column, values);
#pragma unroll
            for (int v = 0; v < VALUES; ++v) row[v][threadIdx.x] = values[v];
        }
        __syncthreads();
        const int end = min(last, start + BLOCK_COLUMNS - 1);
        for (int x = max(first, start); x <= end; ++x) {
            Real values[VALUES];
#pragma unroll
            for (int v = 0; v < VALUES; ++v) values[v] = row[v][x - start];
            merge(values);
        }
        __syncthreads();  // the next piece overwrites the columns
    }
}

// The place of (i, j), j <= i, in a symmetric or triangular matrix stored as its lower triangle.
__device__ constexpr int entry(int i, int j) {
    return i * (i + 1) / 2 + j;
}

// W = T⁻¹ where T is the Cholesky factor of the matrix, Σ + ridge·Id, so that WᵀW is its inverse.
// In exact arithmetic no pivot is below the ridge; the maximum keeps rounding from going there.
template <int C>
__device__ inline void whitening_factor(const double (&matrix)[C * (C + 1) / 2], double ridge,
                                        double (&whitening)[C * (C + 1) / 2]) {
    double t[C][C], w[C][C];
#pragma unroll
    for (int i = 0; i < C; ++i) {
#pragma unroll
        for (int j = 0; j <= i; ++j) {
            double rest = matrix[entry(i, j)];
#pragma unroll
            for (int m = 0; m < j; ++m) rest -= t[i][m] * t[j][m];
            t[i][j] = i == j ? sqrt(max(rest, ridge)) : rest / t[j][j];
        }
    }
#pragma unroll
    for (int j = 0; j < C; ++j) {
#pragma unroll
        for (int i = j; i < C; ++i) {
            double rest = i == j ? 1.0 : 0.0;
#pragma unroll
            for (int m = j; m < i; ++m) rest -= t[i][m] * w[m][j];
            w[i][j] = rest / t[i][i];
            whitening[entry(i, j)] = w[i][j];
        }
    }
}

// guide (B, C, height, width) -> statistics (B, C + C(C+1)/2, height − 2r, width − 2r): for each
// window the mean minus the colour of its centre pixel, μ_k − I_k, then the lower triangle of W_k.
template <typename Scalar, int C>
__global__ void window_statistics(const Scalar* __restrict__ guide, Scalar* __restrict__ statistics,
                                  double epsilon, int height, int width, int radius, int strip) {
    constexpr int PAIRS = C * (C + 1) / 2;
    constexpr int COLOUR = 0, SUM = C, PRODUCT = 2 * C;  // of a column: at its centre, and relative
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Site site = this_site(1, rows, columns, strip);
    const Index size = Index(height) * width;
    const Scalar* const image = guide + site.image * C * size;
    const int y = site.row + radius, x = site.column + radius;
    const double n = 2 * radius + 1, area = n * n;

    double centre[C], mean[C] = {}, covariance[PAIRS] = {};
#pragma unroll
    for (int c = 0; c < C; ++c) centre[c] = image[c * size + Index(y) * width + x];

    const auto measure = [&](int column, double (&values)[2 * C + PAIRS]) {
        const Scalar* const pixel = image + Index(y) * width + column;
#pragma unroll
        for (int c = 0; c < C; ++c) values[COLOUR + c] = pixel[c * size];
        for (int dy = -radius; dy <= radius; ++dy) {
            double d[C];
#pragma unroll
            for (int i = 0; i < C; ++i) {
                d[i] = pixel[i * size + Index(dy) * width] - values[COLOUR + i];
                values[SUM + i] += d[i];
#pragma unroll
                for (int j = 0; j <= i; ++j) values[PRODUCT + entry(i, j)] += d[i] * d[j];
            }
        }
    };
    const auto merge = [&](const double (&values)[2 * C + PAIRS]) {
        double shift[C];
#pragma unroll
        for (int i = 0; i < C; ++i) {
            shift[i] = values[COLOUR + i] - centre[i];
            mean[i] += values[SUM + i] + n * shift[i];
#pragma unroll
            for (int j = 0; j <= i; ++j)
                covariance[entry(i, j)] += values[PRODUCT + entry(i, j)] +
                                           values[SUM + i] * shift[j] +
                                           shift[i] * (values[SUM + j] + n * shift[j]);
        }
    };
    sweep_columns<double, 2 * C + PAIRS>(site.strip_first, site.strip_last + 2 * radius,
                                         site.column, site.column + 2 * radius, measure, merge);
    if (!site.writes) return;

    const double ridge = epsilon / area;
    double whitening[PAIRS];
#pragma unroll
    for (int c = 0; c < C; ++c) mean[c] /= area;
#pragma unroll
    for (int i = 0; i < C; ++i) {
#pragma unroll
        for (int j = 0; j <= i; ++j) {
            double& value = covariance[entry(i, j)];
            value = value / area - mean[i] * mean[j] + (i == j ? ridge : 0.0);
        }
    }
    whitening_factor<C>(covariance, ridge, whitening);

    const Index windows = Index(rows) * columns;
    Scalar* const out =
        statistics + site.image * (C + PAIRS) * windows + Index(site.row) * columns + site.column;
#pragma unroll
    for (int c = 0; c < C; ++c) out[c * windows] = static_cast<Scalar>(mean[c]);
#pragma unroll
    for (int e = 0; e < PAIRS; ++e) out[(C + e) * windows] = static_cast<Scalar>(whitening[e]);
}

// p (B, channels, height, width) -> models (B, channels, C + 1, height − 2r, width − 2r): a_k, ρ_k.
template <typename Scalar, int C>
__global__ void window_models(const Scalar* __restrict__ p, const Scalar* __restrict__ guide,
                              const Scalar* __restrict__ statistics, Scalar* __restrict__ models,
                              int channels, int height, int width, int radius, int strip) {
    constexpr int PAIRS = C * (C + 1) / 2;
    constexpr int COLOUR = 0, VALUE = C;  // of a column: at its centre, and relative to that
    constexpr int COLOUR_SUM = C + 1, VALUE_SUM = 2 * C + 1, PRODUCT = 2 * C + 2;
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Site site = this_site(channels, rows, columns, strip);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Scalar* const image = guide + site.image * C * size;
    const Scalar* const plane = p + site.plane * size;
    const int y = site.row + radius, x = site.column + radius;
    const Scalar n = 2 * radius + 1, area = n * n;

    const Index window = Index(site.row) * columns + site.column;
    const Scalar* const known = statistics + site.image * (C + PAIRS) * windows + window;
    const Index centre = Index(y) * width + x;
    Scalar mean_offset[C], centre_colour[C];  // μ_k − I_k, I_k
#pragma unroll
    for (int c = 0; c < C; ++c) {
        mean_offset[c] = known[c * windows];
        centre_colour[c] = image[c * size + centre];
    }
    const Scalar centre_value = plane[centre];
    Scalar value_sum = 0, covariance[C] = {};

    const auto measure = [&](int column, Scalar (&values)[3 * C + 2]) {
        const Index pixel = Index(y) * width + column;
#pragma unroll
        for (int c = 0; c < C; ++c) values[COLOUR + c] = image[c * size + pixel];
        values[VALUE] = plane[pixel];
        for (int dy = -radius; dy <= radius; ++dy) {
            const Index neighbour = pixel + Index(dy) * width;
            const Scalar dp = plane[neighbour] - values[VALUE];
            values[VALUE_SUM] += dp;
#pragma unroll
            for (int c = 0; c < C; ++c) {
                const Scalar di = image[c * size + neighbour] - values[COLOUR + c];
                values[COLOUR_SUM + c] += di;
                values[PRODUCT + c] += di * dp;
            }
        }
    };
    // Σ_j (I_j − μ)(p_j − p_k) over the column. p_k does as well as p̄, since Σ_j (I_j − μ) = 0.
    const auto merge = [&](const Scalar (&values)[3 * C + 2]) {
        const Scalar dp = values[VALUE] - centre_value;
        const Scalar column_sum = values[VALUE_SUM] + n * dp;
        value_sum += column_sum;
#pragma unroll
        for (int c = 0; c < C; ++c) {
            const Scalar di = values[COLOUR + c] - centre_colour[c] - mean_offset[c];
            covariance[c] += values[PRODUCT + c] + values[COLOUR_SUM + c] * dp + di * column_sum;
        }
    };
    sweep_columns<Scalar, 3 * C + 2>(site.strip_first, site.strip_last + 2 * radius, site.column,
                                     site.column + 2 * radius, measure, merge);
    if (!site.writes) return;

    // a = Wᵀ (W cov)
    Scalar a[C] = {};
#pragma unroll
    for (int i = 0; i < C; ++i) {
        Scalar whitened = 0, w[C];
#pragma unroll
        for (int j = 0; j <= i; ++j) {
            w[j] = known[(C + entry(i, j)) * windows];
            whitened += w[j] * (covariance[j] / area);
        }
#pragma unroll
        for (int j = 0; j <= i; ++j) a[j] += w[j] * whitened;
    }
    Scalar residual = -value_sum / area;  // p_k − p̄
#pragma unroll
    for (int c = 0; c < C; ++c) residual += a[c] * mean_offset[c];

    Scalar* const out = models + site.plane * (C + 1) * windows + window;
#pragma unroll
    for (int c = 0; c < C; ++c) out[c * windows] = a[c];
    out[C * windows] = residual;
}

// (L p)_i = Σ_k (p_i − a_kᵀ I_i − b_k), the sum of what the fits leave at pixel i. It
// is carried from k to i in two steps, along the column and along the row; each adds the difference
// between two pixels of w_k only. The result is a form of it, (B, channels, height, width), or, for
// MEANS, (B, channels, C + 1, height, width): the means of a_k and b_k over the windows that hold i.
// They give the projection, āᵀ I_i + b̄ = p_i − (L p)_i / D_i.
template <typename Scalar, int C, Form FORM>
__global__ void sum_windows(const Scalar* __restrict__ p, const Scalar* __restrict__ guide,
                            const Scalar* __restrict__ models, Scalar* __restrict__ result,
                            int channels, int height, int width, int radius, int strip) {
    constexpr int COLOUR = 0, VALUE = C, SLOPE_SUM = C + 1, RESIDUAL_SUM = 2 * C + 1;
    const Site site = this_site(channels, height, width, strip);
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Scalar* const image = guide + site.image * C * size;
    const Scalar* const plane = p + site.plane * size;
    const Scalar* const model = models + site.plane * (C + 1) * windows;
    const int y = site.row, x = site.column;

    // Centres of the windows that hold this pixel: within r of it, and no nearer to the border.
    const int top = max(y - radius, radius), bottom = min(y + radius, height - 1 - radius);
    const int left = max(x - radius, radius), right = min(x + radius, width - 1 - radius);
    const int reach_left = max(site.strip_first - radius, radius);
    const int reach_right = min(site.strip_last + radius, width - 1 - radius);
    const Scalar n = bottom - top + 1;

    const Index here = Index(y) * width + x;
    Scalar colour[C], slope[C] = {}, residual = 0;
#pragma unroll
    for (int c = 0; c < C; ++c) colour[c] = image[c * size + here];
    const Scalar value = plane[here];

    const auto measure = [&](int column, Scalar (&values)[2 * C + 2]) {
        const Index pixel = Index(y) * width + column;
#pragma unroll
        for (int c = 0; c < C; ++c) values[COLOUR + c] = image[c * size + pixel];
        values[VALUE] = plane[pixel];
        for (int k = top; k <= bottom; ++k) {
            const Index centre = Index(k) * width + column;
            const Index window = Index(k - radius) * columns + column - radius;
            values[RESIDUAL_SUM] += model[C * windows + window] + (values[VALUE] - plane[centre]);
#pragma unroll
            for (int c = 0; c < C; ++c) {
                const Scalar a = model[c * windows + window];
                values[SLOPE_SUM + c] += a;
                values[RESIDUAL_SUM] -= a * (values[COLOUR + c] - image[c * size + centre]);
            }
        }
    };
    const auto merge = [&](const Scalar (&values)[2 * C + 2]) {
        residual += values[RESIDUAL_SUM] + n * (value - values[VALUE]);
#pragma unroll
        for (int c = 0; c < C; ++c) {
            slope[c] += values[SLOPE_SUM + c];
            residual -= values[SLOPE_SUM + c] * (colour[c] - values[COLOUR + c]);
        }
    };
    sweep_columns<Scalar, 2 * C + 2>(reach_left, reach_right, left, right, measure, merge);
    if (!site.writes) return;

    const int holding = (bottom - top + 1) * (right - left + 1);  // D_i
    if constexpr (FORM == MEANS) {
        Scalar* const out = result + site.plane * (C + 1) * size + here;
        Scalar offset = value - residual / holding;
#pragma unroll
        for (int c = 0; c < C; ++c) {
            const Scalar mean = slope[c] / holding;
            out[c * size] = mean;
            offset -= mean * colour[c];
        }
        out[C * size] = offset;
    } else {
        result[site.plane * size + here] = in_form<FORM>(value, residual, holding, 1 / Scalar(holding));
    }
}

// ---------------------------------------------------------------------------- r = 1, in one launch
//
// A block is one warp, which walks down a strip of the image. Its lanes hold 32 neighbouring columns of windows, and
// each keeps in registers the three rows of its window: I and p are read once, L p is written once,
// and nothing goes through memory in between. There are no barriers and no shared memory.
//
// A window is a least squares problem: columns X of centred colours, with √ε Id below them, and p.
// Modified Gram-Schmidt, in float32, makes the columns orthogonal; what they leave of p is
// p_i − a_kᵀ I_i − b_k, at the nine pixels at once. Its error goes with the condition number of X;
// that of normal equations would go with its square, 1e7. With X not divided by |w|, the ridge is ε
// itself.
//
// A lane adds what windows leave into sums for the nine pixels around; those of a row are complete
// when the window below it has been added, and then neighbouring lanes exchange their outer columns.
// The lanes at both ends only have windows for others: 30 columns of pixels come out of 32.

constexpr int LANES = 32;
constexpr int STRIP = LANES - 2;
constexpr unsigned ALL_LANES = 0xffffffff;
constexpr float SMALLEST_NORMAL = 1.17549435e-38f;

__device__ inline void prefetch([[maybe_unused]] const float* address) {
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.L1 [%0];" ::"l"(address));
#endif
}

// Three pixels of a row, N channels each: the middle one, and what its neighbours differ by.
template <int N>
struct Triple {
    float left[N], middle[N], right[N];
};

// How the nine pixels of a window differ from the mean, one channel, row by row.
template <int N>
__device__ inline void centre(const Triple<N>& above, const Triple<N>& row, const Triple<N>& below,
                              int channel, float (&values)[9]) {
    const float up = above.middle[channel] - row.middle[channel];
    const float down = below.middle[channel] - row.middle[channel];
    const float sum = (above.left[channel] + above.right[channel]) +
                      (row.left[channel] + row.right[channel]) +
                      (below.left[channel] + below.right[channel]) + 3 * (up + down);
    const float mean = sum * (1.0f / 9);
    const float middles[3] = {up - mean, -mean, down - mean};
    const Triple<N>* const rows[3] = {&above, &row, &below};
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        values[3 * i] = rows[i]->left[channel] + middles[i];
        values[3 * i + 1] = middles[i];
        values[3 * i + 2] = rows[i]->right[channel] + middles[i];
    }
}

// 1 / x for a normal x, in one instruction; its last bit may be wrong.
__device__ inline float reciprocal(float x) {
#ifdef __CUDA_ARCH__
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return 1 / x;
#endif
}

// 1 / n for n up to 3, without a division.
__device__ inline float share_of(int n) {
    return n == 3 ? 1.0f / 3 : n == 2 ? 0.5f : 1.0f;
}

__device__ inline float dot(const float (&a)[9], const float (&b)[9]) {
    float sum = a[0] * b[0];
#pragma unroll
    for (int i = 1; i < 9; ++i) sum += a[i] * b[i];
    return sum;
}

// a -= factor * b
__device__ inline void take(float (&a)[9], float factor, const float (&b)[9]) {
#pragma unroll
    for (int i = 0; i < 9; ++i) a[i] -= factor * b[i];
}

// The columns of X, made orthogonal.
template <int C>
struct Basis {
    float columns[C][9], inverse_norms[C];  // squared norms

    template <int N>
    __device__ Basis(const Triple<N>& above, const Triple<N>& row, const Triple<N>& next,
                     float epsilon) {
        float below[C][C] = {};  // what was √ε Id, in units of √ε
#pragma unroll
        for (int j = 0; j < C; ++j) {
            centre(above, row, next, j, columns[j]);
            below[j][j] = 1;
#pragma unroll
            for (int i = 0; i < j; ++i) {
                float product = 0;
#pragma unroll
                for (int m = 0; m < i; ++m) product += below[i][m] * below[j][m];
                const float factor =
                    (dot(columns[i], columns[j]) + epsilon * product) * inverse_norms[i];
                take(columns[j], factor, columns[i]);
#pragma unroll
                for (int m = 0; m <= i; ++m) below[j][m] -= factor * below[i][m];
            }
            float norm = 1;
#pragma unroll
            for (int m = 0; m < j; ++m) norm += below[j][m] * below[j][m];
            inverse_norms[j] = reciprocal(dot(columns[j], columns[j]) + epsilon * norm);
        }
    }

    // What they leave of p, below which there is 0.
    __device__ void take_out_of(float (&values)[9]) const {
        float factors[C];
#pragma unroll
        for (int j = 0; j < C; ++j) factors[j] = dot(columns[j], values) * inverse_norms[j];
#pragma unroll
        for (int j = 0; j < C; ++j) take(values, factors[j], columns[j]);
    }
};

// guide (B, C, height, width), p (B, groups · K, height, width) -> a form of L p, of p's shape. For
// ENERGY that is L p, and warp w leaves its part of Σ p_i (L p)_i in energies[w]; the warps of an
// image are neighbours. Their numbers come from radius_1_geometry() in _cuda.py.
template <int C, int K, Form FORM>
__global__ void __launch_bounds__(LANES, 12)
radius_1(const float* __restrict__ guide, const float* __restrict__ p, float* __restrict__ result,
         float* __restrict__ energies, double epsilon, int groups, int height, int width,
         int rows) {
    constexpr int N = C + K;
    const int warp = blockIdx.x, lane = threadIdx.x;
    const int strips = (width + STRIP - 1) / STRIP, chunks = (height + rows - 1) / rows;
    const Index group = warp / strips / chunks;
    const int first = warp / strips % chunks * rows;
    const int last = min(first + rows, height) - 1;
    const unsigned size = height * width;  // three times that is below 2³¹: see is_one_launch()
    const float* const image = guide + group / groups * C * size;
    const float* const planes = p + group * K * size;
    float* const out = result + group * K * size;
    const float ridge = max(static_cast<float>(epsilon), SMALLEST_NORMAL);

    // This lane's column of pixels, which is also that of its windows, if there are any.
    const int column = warp % strips * STRIP - 1 + lane;
    const int centre_column = min(max(column, 1), width - 2);
    const bool has_windows = column == centre_column;
    const bool writes = lane >= 1 && lane <= STRIP && column < width;
    const int columns_holding = count(min(max(column, 0), width - 1), width, 1);
    const float column_share = 1.0f / columns_holding;

    // Windows of the rows before and after reach the pixels, too.
    const int start = max(first - 1, 1);
    unsigned loaded = (start - 1) * width + centre_column;
    unsigned written = (start - 1) * width + column;
    Triple<N> ring[3];
    float sums[3][3][K] = {};  // of pixel rows, of the columns left, middle and right
    float energy = 0;

    // While a row is loaded, two lanes per channel ask for both ends of the strip in the next one.
    const int channel = lane / 2 % N;
    const float* ahead = channel < C ? image + channel * size : planes + (channel - C) * size;
    const int strip_end = column - lane + (lane % 2 ? LANES - 1 : 0);
    ahead += (start - 1) * width + min(max(strip_end, 0), width - 1);
    const auto load_next = [&](Triple<N>& triple, bool more) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const float* const pixel =
                n < C ? &image[n * size + loaded] : &planes[(n - C) * size + loaded];
            triple.middle[n] = pixel[0];
            triple.left[n] = pixel[-1] - pixel[0];
            triple.right[n] = pixel[1] - pixel[0];
        }
        loaded += width;
        ahead += width;
        if (more) prefetch(ahead);
    };
    load_next(ring[0], true);
    load_next(ring[1], true);
    for (int base = start; base <= last + 1; base += 3) {
#pragma unroll
        for (int phase = 0; phase < 3; ++phase) {  // so that the ring turns without moving
            const int row = base + phase;
            if (row > last + 1) break;
            const int next = (phase + 1) % 3, after = (phase + 2) % 3;
            if (row <= height - 2) load_next(ring[after], row < height - 2);
            if (row <= height - 2 && has_windows) {
                const Basis<C> basis(ring[phase], ring[next], ring[after], ridge);
#pragma unroll
                for (int k = 0; k < K; ++k) {
                    float left[9];
                    centre(ring[phase], ring[next], ring[after], C + k, left);
                    basis.take_out_of(left);
#pragma unroll
                    for (int i = 0; i < 3; ++i) {
                        sums[phase][i][k] += left[i];
                        sums[next][i][k] += left[3 + i];
                        sums[after][i][k] = left[6 + i];  // no window before reaches this row
                    }
                }
            }
            // No window after this one reaches the row above.
            const int above = row - 1;
#pragma unroll
            for (int k = 0; k < K; ++k) {
                const float(&complete)[3][K] = sums[phase];
                const float product = complete[1][k] +
                                      __shfl_up_sync(ALL_LANES, complete[2][k], 1) +
                                      __shfl_down_sync(ALL_LANES, complete[0][k], 1);
                if (!writes || above < first) continue;
                float value = 0;
                if constexpr (FORM != PRODUCT) {
                    value = ring[phase].middle[C + k];
                    if (column < centre_column) value += ring[phase].left[C + k];
                    if (column > centre_column) value += ring[phase].right[C + k];
                }
                const int rows_holding = count(above, height, 1);
                out[k * size + written] =
                    in_form<FORM>(value, product, columns_holding * rows_holding,
                                  column_share * share_of(rows_holding));
                if constexpr (FORM == ENERGY) energy += value * product;
            }
            written += width;
        }
    }
    if constexpr (FORM == ENERGY) {
        for (int distance = LANES / 2; distance > 0; distance /= 2)
            energy += __shfl_down_sync(ALL_LANES, energy, distance);
        if (lane == 0) energies[warp] = energy;
    }
}
