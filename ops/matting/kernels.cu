// The matting Laplacian of a guide image I, applied to p without the matrix.
//
//     a_k = (Σ_k + ε/|w| Id)⁻¹ cov_k(I, p)      b_k = p̄_k − a_kᵀ μ_k
//     (L p)_i = Σ_{k : i ∈ w_k} ( p_i − a_kᵀ I_i − b_k )
//
// A. Levin, D. Lischinski, Y. Weiss, "A closed-mode solution to natural image matting", 2006.
// K. He, J. Sun, X. Tang, "Fast matting using large kernel matting Laplacian matrices", 2010.
//
// The windows w_k are the squares of |w| = (2r+1)² pixels inside the image; k is the centre of one.
//
// With D the number of windows that hold a pixel, all results are modes of one sum:
//
//     PRODUCT      L p
//     FIT          F p = D p − L p = Σ_k (a_kᵀ I_i + b_k), symmetric as L is
//     GUIDED_FILTER   P p = F p / D
//
// For float32 and r = 1 one kernel does it all:
//
//     fused_radius_1            p, guide         -> L p, F p or P p
//
// Otherwise there are three,
//
//     window_statistics   guide            -> μ_k, W_k   once per guide
//     window_coefficients       p, guide, μ, W   -> a_k, ρ_k
//     sum_windows         p, guide, a, ρ   -> L p, F p, P p, or the means of a_k and b_k
//
// with W_kᵀ W_k = (Σ_k + ε/|w| Id)⁻¹ and ρ_k = p_k − a_kᵀ I_k − b_k, what the fit leaves at k.
//
// How a block of the three works. A block computes a few tiles of side x side results, side by
// side. All windows of a tile have pixels in common: along each axis they reach, from lines that all
// of them hold, some way back and some way on. Sums of these two ways are prefix sums, so every
// window costs two additions per axis whatever the radius, and nothing is ever subtracted (van Herk
// 1992 and Gil, Werman 1993 find maxima that way). One thread takes a column of the tile's reach and
// leaves what it sums in shared memory, one then takes a row of that. There are no atomics and every
// sum has one order, so the bits are the same from run to run.
//
// Precision. Every sum is taken over differences to a pixel of all the windows, never over the
// values themselves. Neighbours are close, so that their difference is exact or nearly so, and
// errors scale with the contrast in the window instead of with its brightness. If that pixel is an
// outlier, cancellation multiplies rounding errors by |w| at most, to 2e-5 at r = 8. Running sums,
// from which what leaves a window is subtracted, would keep the rounding errors of an edge that has
// long left it. So float32 is enough in the two kernels that run for every p, and they are the ones
// that matter where float64 is 64 times slower.
// window_statistics runs once per guide, in float64: it factors matrices whose condition number
// reaches 1e7 at ε = 1e-7, r = 1. It leaves the factor W and not the inverse: on near-grey windows
// the inverse's entries, up to |w|/ε = 9e7, would cancel in float32; W's are their square roots.
// b_k is not formed on the way to L p: with |a_k| up to 1e3 it would cancel against a_kᵀ I_i.
// A constant p gives exactly zero.
//
// Compile with -DTHREADS=, how many a block of the three has, from cuda.py.

using Index = long long;  // 64 planes of 8192 x 8192 pixels are 2³² values; one is within 32 bits

enum Mode { PRODUCT, MATTING_LOSS, FIT, GUIDED_FILTER, COEFFICIENTS };

// How many of the windows along one axis hold the pixel at `position`.
__device__ inline int count(int position, int length, int radius) {
    return min(position, length - 1 - 2 * radius) - max(position - 2 * radius, 0) + 1;
}

// L p, F p or P p at a pixel from p and L p there; `share` is 1 / windows.
template <Mode MODE, typename Scalar>
__device__ inline Scalar in_mode(Scalar value, Scalar product, int windows, Scalar share) {
    if constexpr (MODE == FIT) return windows * value - product;
    if constexpr (MODE == GUIDED_FILTER) return value - product * share;
    return product;
}

// Where a block of the three works: tiles of side x side results, `tiles` of them side by side, of
// one channel of one image. The shape comes from tiling() in cuda.py.
struct Block {
    Index image, plane;  // plane: image * channels + channel
    int top, rows;       // of the results: the first row, and how many
    int left, columns;   // the first column, and where the image ends
    int radius, side, tiles;
    int reach;  // lines of the other image, pixels or windows, that a tile needs
    int pitch;  // of the table; odd, so that a warp that walks along 32 rows meets 32 banks

    __device__ Block(int channels, int height, int width, int radius, int side, int tiles)
        : columns(width),
          radius(radius),
          side(side),
          tiles(tiles),
          reach(side + 2 * radius),
          pitch(tiles * reach | 1) {
        const int across = (width + side * tiles - 1) / (side * tiles);
        const int down = (height + side - 1) / side;
        // Channels vary fastest: blocks that run at the same time share the guide in the cache.
        const int channel = blockIdx.x % channels, place = blockIdx.x / channels;
        left = place % across * side * tiles;
        top = place / across % down * side;
        rows = min(side, height - top);
        image = place / across / down;
        plane = image * channels + channel;
    }

    __device__ int left_of(int tile) const { return left + tile * side; }

    // How many columns of results a tile has: none, beyond the image.
    __device__ int columns_of(int tile) const { return max(0, min(side, columns - left_of(tile))); }

    // A pixel that all windows of a tile hold, in an image of that width.
    __device__ unsigned pixel_of_all(int tile, int width) const {
        const int y = top + (rows - 1 + 2 * radius) / 2;
        return y * width + left_of(tile) + (columns_of(tile) - 1 + 2 * radius) / 2;
    }
};

// The N channels of an image.
template <typename Scalar, int N>
struct Planes {
    const Scalar* first[N];

    __device__ Planes(const Scalar* planes, Index size) {
#pragma unroll
        for (int n = 0; n < N; ++n) first[n] = planes + n * size;
    }
    __device__ Scalar operator()(int n, unsigned place) const { return first[n][place]; }
};

// A block's shared memory, tables[value][row][tile · reach + column].
template <typename Real>
__device__ inline Real* shared_table() {
    extern __shared__ double shared_memory[];
    return reinterpret_cast<Real*>(shared_memory);
}

// Sums over the lines [i, 2r] for i < count.
template <int VALUES, typename Real, typename Add, typename Put>
__device__ inline void sum_back(int count, int radius, Add add, Put put) {
    Real sums[VALUES] = {};
    for (int line = 2 * radius; line >= count; --line) add(line, sums);
    for (int line = count - 1; line >= 0; --line) {
        add(line, sums);
        put(line, sums);
    }
}

// Sums over the lines [2r + 1, 2r + i] for i < count.
template <int VALUES, typename Real, typename Add, typename Put>
__device__ inline void sum_on(int count, int radius, Add add, Put put) {
    Real sums[VALUES] = {};
    put(0, sums);
    for (int line = 1; line < count; ++line) {
        add(2 * radius + line, sums);
        put(line, sums);
    }
}

// For every column that the block needs, walk(tile, column of the tile's reach, &tables[0][0][·]).
template <typename Real, typename Walk>
__device__ inline void for_each_column(const Block& block, Real* table, Walk walk) {
    for (int i = threadIdx.x; i < block.tiles * block.reach; i += THREADS) {
        const int tile = i / block.reach, column = i % block.reach;
        const int columns = block.columns_of(tile);
        if (columns && column < columns + 2 * block.radius) walk(tile, column, table + i);
    }
    __syncthreads();
}

// For every row of every table and tile, walk(columns of results, the row).
template <int VALUES, typename Real, typename Walk>
__device__ inline void for_each_row(const Block& block, Real* table, Walk walk) {
    for (int i = threadIdx.x; i < VALUES * block.side * block.tiles; i += THREADS) {
        const int tile = i / (VALUES * block.side), row = i % (VALUES * block.side);
        const int columns = block.columns_of(tile);
        if (columns && row % block.side < block.rows)
            walk(columns, table + row * block.pitch + tile * block.reach);
    }
    __syncthreads();
}

// For every result of the block, column_of(tile, column within it)(row): a thread keeps to a column
// as long as it can, for much is the same all the way down.
template <typename ColumnOf>
__device__ inline void for_each_result(const Block& block, ColumnOf column_of) {
    const int across = block.side * block.tiles;
    const int step = max(1, THREADS / across);
    if (int(threadIdx.x) >= step * across) return;
    for (int i = threadIdx.x % across; i < across; i += THREADS) {
        const int tile = i / block.side;
        if (block.left + i >= block.columns) return;
        const auto use = column_of(tile, i - tile * block.side);
        for (int row = threadIdx.x / across; row < block.rows; row += step) use(row);
    }
}

// Sums over windows. column_of(tile, column) gives what adds a row's pixel of that column to the
// sums; the windows' sums come to lie at tables[value][row][tile · reach + column].
template <int VALUES, typename Real, typename ColumnOf>
__device__ inline void sum_over_windows(const Block& block, Real* table, ColumnOf column_of) {
    for_each_column(block, table, [&](int tile, int column, Real* out) {
        const auto add = column_of(tile, column);
        const auto at = [&](int value, int row) -> Real& {
            return out[(value * block.side + row) * block.pitch];
        };
        sum_back<VALUES, Real>(block.rows, block.radius, add, [&](int row, const Real* sums) {
#pragma unroll
            for (int v = 0; v < VALUES; ++v) at(v, row) = sums[v];
        });
        sum_on<VALUES, Real>(block.rows, block.radius, add, [&](int row, const Real* sums) {
#pragma unroll
            for (int v = 0; v < VALUES; ++v) at(v, row) += sums[v];
        });
    });
    for_each_row<VALUES>(block, table, [&](int columns, Real* row) {
        const auto add = [&](int column, Real* sum) { *sum += row[column]; };
        // What is read later is not yet overwritten: that lies beyond 2r, and columns <= 2r.
        sum_back<1, Real>(columns, block.radius, add,
                          [&](int column, const Real* sum) { row[column] = *sum; });
        sum_on<1, Real>(columns, block.radius, add,
                        [&](int column, const Real* sum) { row[column] += *sum; });
    });
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
__global__ void __launch_bounds__(THREADS, 10)
    window_statistics(const Scalar* __restrict__ guide, Scalar* __restrict__ statistics,
                      double epsilon, int height, int width, int radius, int side, int tiles) {
    constexpr int PAIRS = C * (C + 1) / 2, VALUES = C + PAIRS;
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Block block(1, rows, columns, radius, side, tiles);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Planes<Scalar, C> image(guide + block.image * C * size, size);
    double* const table = shared_table<double>();

    // Σ (I − I_R) and Σ (I − I_R)(I − I_R)ᵀ, where all of the tile's windows hold the pixel R.
    sum_over_windows<VALUES>(block, table, [&](int tile, int column) {
        const unsigned reference = block.pixel_of_all(tile, width);
        const unsigned first = block.top * width + block.left_of(tile) + column;
        return [=](int row, double* sums) {
            double d[C];
#pragma unroll
            for (int i = 0; i < C; ++i) {
                d[i] = double(image(i, first + row * width)) - double(image(i, reference));
                sums[i] += d[i];
#pragma unroll
                for (int j = 0; j <= i; ++j) sums[C + entry(i, j)] += d[i] * d[j];
            }
        };
    });

    const double area = (2 * radius + 1) * (2 * radius + 1), ridge = epsilon / area;
    for_each_result(block, [&](int tile, int column) {
        const double* const first = table + tile * block.reach + column;
        const int x = block.left_of(tile) + column;
        const unsigned reference = block.pixel_of_all(tile, width);
        return [=, &block](int row) {
            const double* const sums = first + row * block.pitch;
            const int y = block.top + row;
            const unsigned centre = (y + radius) * width + x + radius;
            Scalar* const out =
                statistics + block.image * VALUES * windows + unsigned(y * columns + x);
            double mean[C], covariance[PAIRS], whitening[PAIRS];
#pragma unroll
            for (int i = 0; i < C; ++i) {
                mean[i] = sums[i * block.side * block.pitch] / area;
                const double shift = double(image(i, centre)) - double(image(i, reference));
                out[i * windows] = static_cast<Scalar>(mean[i] - shift);
#pragma unroll
                for (int j = 0; j <= i; ++j) {
                    const double product =
                        sums[(C + entry(i, j)) * block.side * block.pitch] / area;
                    covariance[entry(i, j)] = product - mean[i] * mean[j] + (i == j ? ridge : 0.0);
                }
            }
            whitening_factor<C>(covariance, ridge, whitening);
#pragma unroll
            for (int e = 0; e < PAIRS; ++e)
                out[(C + e) * windows] = static_cast<Scalar>(whitening[e]);
        };
    });
}

// What window_coefficients leaves of a window, in one access of 16 bytes or more for three channels.
template <typename Scalar, int C>
struct alignas(C == 1 ? 2 * sizeof(Scalar) : 16) Coefficients {
    Scalar slope[C];  // a_k
    Scalar residual;  // ρ_k
};

// p (B, channels, height, width) -> coefficients (B, channels, height − 2r, width − 2r).
template <typename Scalar, int C>
__global__ void __launch_bounds__(THREADS, 10)
    window_coefficients(const Scalar* __restrict__ p, const Scalar* __restrict__ guide,
                  const Scalar* __restrict__ statistics, Coefficients<Scalar, C>* __restrict__ coefficients,
                  int channels, int height, int width, int radius, int side, int tiles) {
    constexpr int PAIRS = C * (C + 1) / 2;
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Block block(channels, rows, columns, radius, side, tiles);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Planes<Scalar, C> image(guide + block.image * C * size, size);
    const Scalar* const plane = p + block.plane * size;
    Scalar* const table = shared_table<Scalar>();

    // Σ (p − p_R) and Σ (I − I_R)(p − p_R), where all of the tile's windows hold the pixel R.
    sum_over_windows<1 + C>(block, table, [&](int tile, int column) {
        const unsigned reference = block.pixel_of_all(tile, width);
        const unsigned first = block.top * width + block.left_of(tile) + column;
        return [=](int row, Scalar* sums) {
            const unsigned pixel = first + row * width;
            const Scalar dp = plane[pixel] - plane[reference];
            sums[0] += dp;
#pragma unroll
            for (int c = 0; c < C; ++c) sums[1 + c] += (image(c, pixel) - image(c, reference)) * dp;
        };
    });

    const Scalar share = Scalar(1) / ((2 * radius + 1) * (2 * radius + 1));
    for_each_result(block, [&](int tile, int column) {
        const Scalar* const first = table + tile * block.reach + column;
        const int x = block.left_of(tile) + column;
        const unsigned reference = block.pixel_of_all(tile, width);
        Scalar colour[C];
#pragma unroll
        for (int c = 0; c < C; ++c) colour[c] = image(c, reference);
        const Scalar value = plane[reference];
        return [=, &block](int row) {
            const Scalar* const sums = first + row * block.pitch;
            const int y = block.top + row;
            const unsigned window = y * columns + x, centre = (y + radius) * width + x + radius;
            const Scalar* const known = statistics + block.image * (C + PAIRS) * windows + window;

            const Scalar mean = sums[0] * share;                          // p̄ − p_R
            Coefficients<Scalar, C> fit = {{}, plane[centre] - value - mean};  // p_k − p̄
            Scalar covariance[C];
#pragma unroll
            for (int c = 0; c < C; ++c) {
                const Scalar offset = known[c * windows];  // μ − I_k
                const Scalar shift = image(c, centre) - colour[c];
                covariance[c] =
                    sums[(1 + c) * block.side * block.pitch] * share - (offset + shift) * mean;
            }
            // a = Wᵀ (W cov)
#pragma unroll
            for (int i = 0; i < C; ++i) {
                Scalar whitened = 0, w[C];
#pragma unroll
                for (int j = 0; j <= i; ++j) {
                    w[j] = known[(C + entry(i, j)) * windows];
                    whitened += w[j] * covariance[j];
                }
#pragma unroll
                for (int j = 0; j <= i; ++j) fit.slope[j] += w[j] * whitened;
            }
#pragma unroll
            for (int c = 0; c < C; ++c) fit.residual += fit.slope[c] * known[c * windows];
            coefficients[block.plane * windows + window] = fit;
        };
    });
}

// How many windows begin on the lines of a half of a tile and hold line i: for the first half in
// [i − 2r, first], for the second in [first + 1, i]. There are `windows` of them, from 0.
__device__ inline int holding(int half, int i, int first, int windows, int radius) {
    const int last = min(half ? i : first, windows - 1);
    return max(0, last - max(half ? first : i - 2 * radius - 1, -1));
}

// (L p)_i = Σ_k (p_i − a_kᵀ I_i − b_k), the sum of what the fits leave at pixel i, in an output mode,
// (B, channels, height, width), or, for COEFFICIENTS, (B, channels, C + 1, height, width): the means of
// a_k and b_k over the windows that hold i. They give the guided_filter, āᵀ I_i + b̄ =
// p_i − (L p)_i / D_i.
//
// Of the windows that hold pixels of a tile, those that begin up to its first line all hold that
// line, the others all hold its last line. So there are four quarters of windows, each with a
// corner R of the tile in all of them. With Σ over those in which pixel i lies,
//
//     Σ_k (p_i − a_kᵀ I_i − b_k) = Σ_k c_k + n (p_i − p_R) − (Σ_k a_k)ᵀ (I_i − I_R),
//     c_k = p_R − a_kᵀ I_R − b_k = ρ_k − (p_k − p_R) + a_kᵀ (I_k − I_R).
template <typename Scalar, int C, Mode MODE>
__global__ void __launch_bounds__(THREADS, 10)
    sum_windows(const Scalar* __restrict__ p, const Scalar* __restrict__ guide,
                const Coefficients<Scalar, C>* __restrict__ coefficients, Scalar* __restrict__ result,
                int channels, int height, int width, int radius, int side, int tiles) {
    constexpr int VALUES = 1 + C;                       // c, a
    constexpr int RESULTS = MODE == COEFFICIENTS ? 1 + C : 1;  // L p, Σ a
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Block block(channels, height, width, radius, side, tiles);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Planes<Scalar, C> image(guide + block.image * C * size, size);
    const Coefficients<Scalar, C>* const fits = coefficients + block.plane * windows;
    const Scalar* const plane = p + block.plane * size;
    Scalar* const table = shared_table<Scalar>();
    Scalar* const results = table + VALUES * side * block.pitch;  // [result][row][column]
    const int across = side * tiles;

    const auto corner = [&](int tile, int lower, int right) {
        const int y = block.top + (lower ? block.rows - 1 : 0);
        const int x = block.left_of(tile) + (right ? block.columns_of(tile) - 1 : 0);
        return unsigned(y * width + x);
    };
    for (int lower = 0; lower < 2; ++lower) {
        for_each_column(block, table, [&](int tile, int column, Scalar* out) {
            const int x = block.left_of(tile) + column - 2 * radius;  // where the windows begin
            const unsigned rows_here = x >= 0 && x < columns ? rows : 0;
            const unsigned reference = corner(tile, lower, column > 2 * radius);
            Scalar colour[C];
#pragma unroll
            for (int c = 0; c < C; ++c) colour[c] = image(c, reference);
            const Scalar value = plane[reference];
            const auto add = [&](int row, Scalar* sums) {
                const unsigned y = block.top + row - 2 * radius;  // negative: beyond all rows
                if (y >= rows_here) return;
                const unsigned centre = (y + radius) * width + x + radius;
                const Coefficients<Scalar, C> fit = fits[y * columns + x];
                sums[0] += fit.residual - (plane[centre] - value);
#pragma unroll
                for (int c = 0; c < C; ++c) {
                    sums[0] += fit.slope[c] * (image(c, centre) - colour[c]);
                    sums[1 + c] += fit.slope[c];
                }
            };
            const auto put = [&](int row, const Scalar* sums) {
#pragma unroll
                for (int v = 0; v < VALUES; ++v) out[(v * side + row) * block.pitch] = sums[v];
            };
            if (lower)
                sum_on<VALUES, Scalar>(block.rows, radius, add, put);
            else
                sum_back<VALUES, Scalar>(block.rows, radius, add, put);
        });
        for_each_row<VALUES>(block, table, [&](int count, Scalar* row) {
            const auto add = [&](int column, Scalar* sum) { *sum += row[column]; };
            sum_back<1, Scalar>(count, radius, add,
                                [&](int column, const Scalar* sum) { row[column] = *sum; });
            sum_on<1, Scalar>(count, radius, add, [&](int column, const Scalar* sum) {
                row[2 * radius + column] = *sum;
            });
        });
        for_each_result(block, [&](int tile, int column) {
            const Scalar* const first = table + tile * block.reach + column;
            Scalar* const kept_first = results + tile * side + column;
            const int x = block.left_of(tile) + column;
            const int columns_holding = count(x, width, radius);
            int holding_x[2];
            Scalar value[2], colour[2][C];
#pragma unroll
            for (int right = 0; right < 2; ++right) {
                const unsigned reference = corner(tile, lower, right);
                holding_x[right] = holding(right, x, block.left_of(tile), columns, radius);
                value[right] = plane[reference];
#pragma unroll
                for (int c = 0; c < C; ++c) colour[right][c] = image(c, reference);
            }
            return [=, &block](int row) {
                const int y = block.top + row;
                const unsigned here = y * width + x;
                Scalar* const kept = kept_first + row * across;
                Scalar product = lower ? *kept : Scalar(0);
                Scalar slope[C] = {}, pixel[C];
#pragma unroll
                for (int c = 0; c < C; ++c) pixel[c] = image(c, here);
                const int holding_y = holding(lower, y, block.top, rows, radius);
#pragma unroll
                for (int right = 0; right < 2; ++right) {
                    const Scalar* const sums = first + row * block.pitch + (right ? 2 * radius : 0);
                    product +=
                        sums[0] + holding_y * holding_x[right] * (plane[here] - value[right]);
#pragma unroll
                    for (int c = 0; c < C; ++c) {
                        const Scalar a = sums[(1 + c) * side * block.pitch];
                        product -= a * (pixel[c] - colour[right][c]);
                        slope[c] += a;
                    }
                }
                if constexpr (MODE == COEFFICIENTS) {
#pragma unroll
                    for (int c = 0; c < C; ++c) {
                        Scalar& sum = kept[(1 + c) * side * across];
                        sum = slope[c] += lower ? sum : Scalar(0);
                    }
                }
                if (!lower) {
                    *kept = product;
                    return;
                }
                const int held = count(y, height, radius) * columns_holding;  // D_i
                if constexpr (MODE == COEFFICIENTS) {
                    Scalar* const out = result + block.plane * RESULTS * size + here;
                    Scalar offset = plane[here] - product / held;
#pragma unroll
                    for (int c = 0; c < C; ++c) {
                        const Scalar mean = slope[c] / held;
                        out[c * size] = mean;
                        offset -= mean * pixel[c];
                    }
                    out[C * size] = offset;
                } else {
                    result[block.plane * size + here] =
                        in_mode<MODE>(plane[here], product, held, 1 / Scalar(held));
                }
            };
        });
        __syncthreads();  // before the table is filled again
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

// guide (B, C, height, width), p (B, groups · K, height, width) -> L p in an output mode, of p's shape. For
// MATTING_LOSS that is L p, and warp w leaves its part of Σ p_i (L p)_i in losses[w]; the warps of an
// image are neighbours. Their numbers come from fused_geometry() in cuda.py.
template <int C, int K, Mode MODE>
__global__ void __launch_bounds__(LANES, 12)
fused_radius_1(const float* __restrict__ guide, const float* __restrict__ p, float* __restrict__ result,
         float* __restrict__ losses, double epsilon, int groups, int height, int width,
         int rows) {
    constexpr int N = C + K;
    const int warp = blockIdx.x, lane = threadIdx.x;
    const int strips = (width + STRIP - 1) / STRIP, chunks = (height + rows - 1) / rows;
    const Index group = warp / strips / chunks;
    const int first = warp / strips % chunks * rows;
    const int last = min(first + rows, height) - 1;
    const unsigned size = height * width;  // three times that is below 2³¹: see has_fused_kernel()
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
    float loss = 0;

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
                if constexpr (MODE != PRODUCT) {
                    value = ring[phase].middle[C + k];
                    if (column < centre_column) value += ring[phase].left[C + k];
                    if (column > centre_column) value += ring[phase].right[C + k];
                }
                const int rows_holding = count(above, height, 1);
                out[k * size + written] =
                    in_mode<MODE>(value, product, columns_holding * rows_holding,
                                  column_share * share_of(rows_holding));
                if constexpr (MODE == MATTING_LOSS) loss += value * product;
            }
            written += width;
        }
    }
    if constexpr (MODE == MATTING_LOSS) {
        for (int distance = LANES / 2; distance > 0; distance /= 2)
            loss += __shfl_down_sync(ALL_LANES, loss, distance);
        if (lane == 0) losses[warp] = loss;
    }
}
