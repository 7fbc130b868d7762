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
//     window_statistics   guide            -> μ_k, W_k   once per guide
//     window_models       p, guide, μ, W   -> a_k, ρ_k
//     sum_windows         p, guide, a, ρ   -> L p, or the means of a_k and b_k at each pixel
//
// with W_kᵀ W_k = (Σ_k + ε/|w| Id)⁻¹ and ρ_k = p_k − a_kᵀ I_k − b_k, what the fit leaves at k.
//
// How a block works. A block takes BLOCK_ROWS rows of one image channel, a strip of columns wide.
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
// between two pixels of w_k only. The result is L p (B, channels, height, width) or, where MEANS,
// (B, channels, C + 1, height, width): the means of a_k and b_k over the windows that hold i. They
// give the projection, āᵀ I_i + b̄ = p_i − (L p)_i / D_i.
template <typename Scalar, int C, bool MEANS>
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

    if constexpr (MEANS) {
        const Scalar count = n * (right - left + 1);  // D_i
        Scalar* const out = result + site.plane * (C + 1) * size + here;
        Scalar offset = value - residual / count;
#pragma unroll
        for (int c = 0; c < C; ++c) {
            const Scalar mean = slope[c] / count;
            out[c * size] = mean;
            offset -= mean * colour[c];
        }
        out[C * size] = offset;
    } else {
        result[site.plane * size + here] = residual;
    }
}
