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
//     window_statistics     guide             -> I_k, μ_k, W_k   once per guide
//     window_coefficients   p, I, μ, W        -> a_k, ρ_k
//     sum_windows           p, I, a, ρ        -> L p, F p, P p, or the means of a_k and b_k
//
// with W_kᵀ W_k = (Σ_k + ε/|w| Id)⁻¹ and ρ_k = p_k − a_kᵀ I_k − b_k, what the fit leaves at k.
//
// How a block of the three works. A block computes a few tiles of side x side results, of up to
// three channels and side by side. All windows of a tile have pixels in common: along each axis they
// reach, from lines that all of them hold, some way back and some way on. Sums of these two ways are
// prefix sums, so every window costs two additions per axis whatever the radius, and nothing is ever
// subtracted (van Herk 1992 and Gil, Werman 1993 find maxima that way). One thread takes a column of
// the tile's reach and leaves what it sums in shared memory, one then takes a row of that. There are
// no atomics and every sum has one order, so the bits are the same from run to run.
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

// Where a block of the three works: tiles of side x side results, `tiles` of them: of `at_once`
// channels of one image, and some of each side by side. Channels share the guide in the cache. The
// shape comes from tiling() in cuda.py.
struct Block {
    Index image;
    int channels, at_once, channel;  // channel: the first one
    int top, rows;                   // of the results: the first row, and how many
    int left, columns;               // the first column, and where the image ends
    int radius, side, tiles;
    int reach;  // lines of the other image, pixels or windows, that a tile needs
    int pitch;  // of the table; odd, so that a warp that walks along 32 rows meets 32 banks

    __device__ Block(int channels, int at_once, int height, int width, int radius, int side,
                     int tiles)
        : channels(channels),
          at_once(at_once),
          columns(width),
          radius(radius),
          side(side),
          tiles(tiles),
          reach(side + 2 * radius),
          pitch(tiles * reach | 1) {
        const int groups = (channels + at_once - 1) / at_once, span = tiles / at_once * side;
        const int across = (width + span - 1) / span, down = (height + side - 1) / side;
        const int place = blockIdx.x / groups;
        channel = blockIdx.x % groups * at_once;
        left = place % across * span;
        top = place / across % down * side;
        rows = min(side, height - top);
        image = place / across / down;
    }

    __device__ int left_of(int tile) const { return left + tile / at_once * side; }

    __device__ int channel_of(int tile) const { return channel + tile % at_once; }

    __device__ Index plane_of(int tile) const { return image * channels + channel_of(tile); }

    // How many columns of results a tile has: none, beyond the image or its channels.
    __device__ int columns_of(int tile) const {
        return channel_of(tile) < channels ? max(0, min(side, columns - left_of(tile))) : 0;
    }

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

// What window_statistics leaves of a guide: the colours of the pixels, in one access of 16 bytes for
// three channels in float, and of each window the colour of its centre pixel, μ_k − I_k and the
// lower triangle of W_k, in three. Of an image the pixels come first, then the windows.
template <typename Scalar, int C>
struct alignas(C == 1 ? sizeof(Scalar) : 16) Colour {
    Scalar value[C == 1 ? 1 : 4];
};
template <typename Scalar, int C>
struct alignas(C == 1 ? sizeof(Scalar) : 16) Window {
    Scalar colour[C], offset[C], whitening[C * (C + 1) / 2];
};
template <typename Scalar, int C>
__device__ inline Index image_bytes(Index pixels, Index windows) {
    return pixels * sizeof(Colour<Scalar, C>) + windows * sizeof(Window<Scalar, C>);
}

// A block's shared memory, tables[value][row][tile · reach + column].
template <typename Real>
__device__ inline Real* shared_table() {
    extern __shared__ double shared_memory[];
    return reinterpret_cast<Real*>(shared_memory);
}

// So many lines are read at a time: what bounds these kernels is waiting for memory.
constexpr int AT_A_TIME = 2;

// Sums over the lines [i, 2r] for i < count.
template <int VALUES, typename Real, typename Add, typename Put>
__device__ inline void sum_back(int count, int radius, Add add, Put put) {
    Real sums[VALUES] = {};
    for (int line = 2 * radius; line >= count; --line) add(line, sums);
#pragma unroll AT_A_TIME
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
#pragma unroll AT_A_TIME
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
        const int tile = i / block.side, column = i - tile * block.side;
        if (column >= block.columns_of(tile)) continue;
        const auto use = column_of(tile, column);
#pragma unroll AT_A_TIME
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

// guide (B, C, height, width) -> the windows of the statistics; the colours are copied by cuda.py.
template <typename Scalar, int C>
__global__ void __launch_bounds__(THREADS, 5)
    window_statistics(const Scalar* __restrict__ guide, char* __restrict__ statistics,
                      double epsilon, int height, int width, int radius, int at_once, int side,
                      int tiles) {
    constexpr int PAIRS = C * (C + 1) / 2, VALUES = C + PAIRS;
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Block block(1, at_once, rows, columns, radius, side, tiles);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Planes<Scalar, C> image(guide + block.image * C * size, size);
    Window<Scalar, C>* const out = reinterpret_cast<Window<Scalar, C>*>(
        statistics + block.image * image_bytes<Scalar, C>(size, windows) +
        size * sizeof(Colour<Scalar, C>));
    double* const table = shared_table<double>();

    // Σ (I − I_R) and Σ (I − I_R)(I − I_R)ᵀ, where all of the tile's windows hold the pixel R.
    sum_over_windows<VALUES>(block, table, [&](int tile, int column) {
        const unsigned reference = block.pixel_of_all(tile, width);
        const unsigned first = block.top * width + block.left_of(tile) + column;
        double colour[C];
#pragma unroll
        for (int c = 0; c < C; ++c) colour[c] = image(c, reference);
        return [=](int row, double* sums) {
            double d[C];
#pragma unroll
            for (int i = 0; i < C; ++i) {
                d[i] = image(i, first + row * width) - colour[i];
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
            Window<Scalar, C> known;
            double mean[C], covariance[PAIRS], whitening[PAIRS];
#pragma unroll
            for (int i = 0; i < C; ++i) {
                mean[i] = sums[i * block.side * block.pitch] / area;
                known.colour[i] = image(i, centre);
                const double shift = double(known.colour[i]) - double(image(i, reference));
                known.offset[i] = static_cast<Scalar>(mean[i] - shift);
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
                known.whitening[e] = static_cast<Scalar>(whitening[e]);
            out[unsigned(y * columns + x)] = known;
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
__global__ void __launch_bounds__(THREADS, sizeof(Scalar) == 4 ? 6 : 4)
    window_coefficients(const Scalar* __restrict__ p, const char* __restrict__ statistics,
                        Coefficients<Scalar, C>* __restrict__ coefficients, int channels,
                        int height, int width, int radius, int at_once, int side, int tiles) {
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Block block(channels, at_once, rows, columns, radius, side, tiles);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const auto* const colours = reinterpret_cast<const Colour<Scalar, C>*>(
        statistics + block.image * image_bytes<Scalar, C>(size, windows));
    const auto* const known_windows = reinterpret_cast<const Window<Scalar, C>*>(colours + size);
    Scalar* const table = shared_table<Scalar>();

    // Σ (p − p_R) and Σ (I − I_R)(p − p_R), where all of the tile's windows hold the pixel R.
    sum_over_windows<1 + C>(block, table, [&](int tile, int column) {
        const unsigned reference = block.pixel_of_all(tile, width);
        const unsigned first = block.top * width + block.left_of(tile) + column;
        const Colour<Scalar, C> colour = colours[reference];
        const Scalar* const plane = p + block.plane_of(tile) * size;
        const Scalar value = plane[reference];
        return [=](int row, Scalar* sums) {
            const unsigned pixel = first + row * width;
            const Colour<Scalar, C> here = colours[pixel];
            const Scalar dp = plane[pixel] - value;
            sums[0] += dp;
#pragma unroll
            for (int c = 0; c < C; ++c) sums[1 + c] += (here.value[c] - colour.value[c]) * dp;
        };
    });

    const Scalar share = Scalar(1) / ((2 * radius + 1) * (2 * radius + 1));
    for_each_result(block, [&](int tile, int column) {
        const Scalar* const first = table + tile * block.reach + column;
        const int x = block.left_of(tile) + column;
        const unsigned reference = block.pixel_of_all(tile, width);
        const Colour<Scalar, C> colour = colours[reference];
        const Scalar* const plane = p + block.plane_of(tile) * size;
        const Scalar value = plane[reference];
        Coefficients<Scalar, C>* const out = coefficients + block.plane_of(tile) * windows;
        return [=, &block](int row) {
            const Scalar* const sums = first + row * block.pitch;
            const int y = block.top + row;
            const unsigned window = y * columns + x, centre = (y + radius) * width + x + radius;
            const Window<Scalar, C> known = known_windows[window];

            const Scalar mean = sums[0] * share;                          // p̄ − p_R
            Coefficients<Scalar, C> fit = {{}, plane[centre] - value - mean};  // p_k − p̄
            Scalar covariance[C];
#pragma unroll
            for (int c = 0; c < C; ++c) {
                const Scalar shift = known.colour[c] - colour.value[c];
                covariance[c] = sums[(1 + c) * block.side * block.pitch] * share -
                                (known.offset[c] + shift) * mean;
            }
            // a = Wᵀ (W cov)
#pragma unroll
            for (int i = 0; i < C; ++i) {
                Scalar whitened = 0, w[C];
#pragma unroll
                for (int j = 0; j <= i; ++j) {
                    w[j] = known.whitening[entry(i, j)];
                    whitened += w[j] * covariance[j];
                }
#pragma unroll
                for (int j = 0; j <= i; ++j) fit.slope[j] += w[j] * whitened;
            }
#pragma unroll
            for (int c = 0; c < C; ++c) fit.residual += fit.slope[c] * known.offset[c];
            out[window] = fit;
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
__global__ void __launch_bounds__(THREADS, sizeof(Scalar) == 4 ? 6 : 4)
    sum_windows(const Scalar* __restrict__ p, const char* __restrict__ statistics,
                const Coefficients<Scalar, C>* __restrict__ coefficients,
                Scalar* __restrict__ result, int channels, int height, int width, int radius,
                int at_once, int side, int tiles) {
    constexpr int VALUES = 1 + C;                       // c, a
    constexpr int RESULTS = MODE == COEFFICIENTS ? 1 + C : 1;  // L p, Σ a
    const int rows = height - 2 * radius, columns = width - 2 * radius;
    const Block block(channels, at_once, height, width, radius, side, tiles);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const auto* const colours = reinterpret_cast<const Colour<Scalar, C>*>(
        statistics + block.image * image_bytes<Scalar, C>(size, windows));
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
            const Colour<Scalar, C> colour = colours[reference];
            const Scalar* const plane = p + block.plane_of(tile) * size;
            const Coefficients<Scalar, C>* const fits =
                coefficients + block.plane_of(tile) * windows;
            const Scalar value = plane[reference];
            const auto add = [&](int row, Scalar* sums) {
                const unsigned y = block.top + row - 2 * radius;  // negative: beyond all rows
                const bool inside = y < rows_here;
                const unsigned window = inside ? y * columns + x : 0;
                const unsigned centre = inside ? (y + radius) * width + x + radius : 0;
                const Coefficients<Scalar, C> fit = fits[window];
                const Colour<Scalar, C> here = colours[centre];
                Scalar left = fit.residual - (plane[centre] - value);
#pragma unroll
                for (int c = 0; c < C; ++c) {
                    left += fit.slope[c] * (here.value[c] - colour.value[c]);
                    sums[1 + c] += inside ? fit.slope[c] : Scalar(0);
                }
                sums[0] += inside ? left : Scalar(0);
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
            const Scalar* const plane = p + block.plane_of(tile) * size;
            Scalar* const out = result + block.plane_of(tile) * RESULTS * size;
            int holding_x[2];
            Scalar value[2];
            Colour<Scalar, C> colour[2];
#pragma unroll
            for (int right = 0; right < 2; ++right) {
                const unsigned reference = corner(tile, lower, right);
                holding_x[right] = holding(right, x, block.left_of(tile), columns, radius);
                value[right] = plane[reference];
                colour[right] = colours[reference];
            }
            return [=, &block](int row) {
                const int y = block.top + row;
                const unsigned here = y * width + x;
                Scalar* const kept = kept_first + row * across;
                Scalar product = lower ? *kept : Scalar(0);
                Scalar slope[C] = {};
                const Colour<Scalar, C> pixel = colours[here];
                const int holding_y = holding(lower, y, block.top, rows, radius);
#pragma unroll
                for (int right = 0; right < 2; ++right) {
                    const Scalar* const sums = first + row * block.pitch + (right ? 2 * radius : 0);
                    product +=
                        sums[0] + holding_y * holding_x[right] * (plane[here] - value[right]);
#pragma unroll
                    for (int c = 0; c < C; ++c) {
                        const Scalar a = sums[(1 + c) * side * block.pitch];
                        product -= a * (pixel.value[c] - colour[right].value[c]);
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
                    Scalar offset = plane[here] - product / held;
#pragma unroll
                    for (int c = 0; c < C; ++c) {
                        const Scalar mean = slope[c] / held;
                        out[c * size + here] = mean;
                        offset -= mean * pixel.value[c];
                    }
                    out[C * size + here] = offset;
                } else {
                    out[here] =
                        in_mode<MODE>(plane[here], product, held, 1 / Scalar(held));
                }
            };
        });
        __syncthreads();  // before the table is filled again
    }
}

// ---------------------------------------------------------------------------- r = 1, in one launch
//
// A block is one warp, which walks down a strip of the image. Its lanes hold 32 neighbouring columns
// of windows, and each keeps in registers what it needs of three rows: I and p are read once, L p is
// written once, and nothing goes through memory in between. There are no barriers and no shared
// memory.
//
// Three neighbours x₋, x₀, x₊ are a mean and two contrasts, orthogonal to it and to each other,
//
//     u = x₊ − κ x₋ − (1 − κ) x₀,   v = x₋ − κ x₊ − (1 − κ) x₀,   κ = 2 − √3,
//
// both of the squared norm ν = 1 + κ² + (1 − κ)². So a window of nine pixels is its mean and eight
// coordinates: the contrasts of each of its rows, and those of the three rows' sums over √3. All
// have the norm √ν. Those of a row serve three windows.
//
// A window is a least squares problem: columns X of colours in these coordinates, with √(ν ε) Id
// below them, and p. Modified Gram-Schmidt, in float32, makes the columns orthogonal. Its error goes
// with the condition number of X; that of normal equations would go with its square, 1e7. With X not
// divided by |w|, the ridge is ε itself.
//
// What a window leaves of p in one of its rows has the contrasts u(p) − a_kᵀ u(I), v(p) − a_kᵀ v(I):
// for those of L p the sum of a_k over the three windows around a row is enough. Only what windows
// leave of the sums of rows is added up window by window. Then neighbouring lanes exchange their
// outer columns. The lanes at both ends only have windows for others: 30 columns of pixels come out
// of 32.

constexpr int LANES = 32;
constexpr int STRIP = LANES - 2;
constexpr unsigned ALL_LANES = 0xffffffff;
constexpr int PREFETCHED = 3;  // rows, counted from the one that is being loaded
constexpr float SMALLEST_NORMAL = 1.17549435e-38f;
constexpr float ROOT_3 = 1.73205081f, OVER_ROOT_3 = 0.577350269f;
constexpr float KAPPA = 0.267949192f, NU = 1.60769515f;
constexpr int COORDINATES = 8;

// Loads that the compiler leaves where they are, a row ahead of their use.
__device__ inline float load_now(const float* address) {
#ifdef __CUDA_ARCH__
    float value;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(value) : "l"(address));
    return value;
#else
    return *address;
#endif
}

__device__ inline void prefetch([[maybe_unused]] const float* address) {
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
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

// Of three values, from what the outer ones differ by from the one between them.
struct Contrasts {
    float u, v;

    __device__ Contrasts() {}
    __device__ Contrasts(float before, float after)
        : u(after - KAPPA * before), v(before - KAPPA * after) {}
};

// Three pixels of a row, N channels each.
template <int N>
struct Pixels {
    float left[N], middle[N], right[N];
};

// The same as a mean and contrasts.
template <int N>
struct Row {
    float middle[N];
    float excess[N];  // of the sum over three times the middle
    Contrasts contrasts[N];

    __device__ Row() {}
    __device__ explicit Row(const Pixels<N>& pixels) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
            middle[n] = pixels.middle[n];
            const float left = pixels.left[n] - middle[n], right = pixels.right[n] - middle[n];
            contrasts[n] = Contrasts(left, right);
            excess[n] = left + right;
        }
    }
};

// A row of pixels and the windows around it, N channels of which the last K are p's.
template <int N, int K>
struct Line {
    Row<N> row;
    float change[N];         // of the sum of a row, over √3, from here to the next
    float slope[K][N - K] = {};  // a_k
    float sum[K] = {};       // what windows leave of the row's sum, over √3, times ν

    __device__ void set_change(const Row<N>& next) {
#pragma unroll
        for (int n = 0; n < N; ++n)
            change[n] = ROOT_3 * (next.middle[n] - row.middle[n]) +
                        OVER_ROOT_3 * (next.excess[n] - row.excess[n]);
    }
};

// The contrasts of the sums of a window's rows, one channel.
template <int N, int K>
__device__ inline Contrasts down(const Line<N, K>& above, const Line<N, K>& line, int channel) {
    return Contrasts(-above.change[channel], line.change[channel]);
}

// a_k of the windows around a line.
template <int N, int K>
__device__ inline void regression(const Line<N, K>& above, Line<N, K>& line,
                                  const Line<N, K>& below, float ridge) {
    constexpr int C = N - K;
    float x[N][COORDINATES];  // the columns of X, then those of p
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const Contrasts of_rows[] = {above.row.contrasts[n], line.row.contrasts[n],
                                     below.row.contrasts[n], down(above, line, n)};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[n][2 * i] = of_rows[i].u;
            x[n][2 * i + 1] = of_rows[i].v;
        }
    }
    float taken[N][C];  // x[n] is what it was but for Σ_m taken[n][m] X_m
#pragma unroll
    for (int j = 0; j < C; ++j) {
        float products[N];
#pragma unroll
        for (int n = j; n < N; ++n) {
            products[n] = x[j][0] * x[n][0];
#pragma unroll
            for (int i = 1; i < COORDINATES; ++i) products[n] = fmaf(x[j][i], x[n][i], products[n]);
        }
        // Below the columns lies √ridge Id, of which as much was taken.
        float norm = 1;
#pragma unroll
        for (int m = 0; m < j; ++m) norm += taken[j][m] * taken[j][m];
        const float inverse = reciprocal(products[j] + ridge * norm);
#pragma unroll
        for (int n = j + 1; n < N; ++n) {
            if (j > 0 && n < C) {
                float below_x = taken[j][0] * taken[n][0];
#pragma unroll
                for (int m = 1; m < j; ++m) below_x += taken[j][m] * taken[n][m];
                products[n] += ridge * below_x;
            }
            taken[n][j] = products[n] * inverse;
            if (n >= C) continue;
#pragma unroll
            for (int m = 0; m < j; ++m) taken[n][m] -= taken[n][j] * taken[j][m];
#pragma unroll
            for (int i = 0; i < COORDINATES; ++i) x[n][i] -= taken[n][j] * x[j][i];
        }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int j = 0; j < C; ++j) {
            line.slope[k][j] = taken[C + k][j];
#pragma unroll
            for (int m = 0; m < j; ++m) line.slope[k][m] -= line.slope[k][j] * taken[j][m];
        }
    }
}

// guide (B, C, height, width), p (B, groups · K, height, width) -> L p in an output mode, of p's
// shape. For MATTING_LOSS that is L p, and warp w leaves its part of Σ p_i (L p)_i in losses[w]; the
// warps of an image are neighbours. Their numbers come from fused_geometry() in cuda.py.
template <int C, int K, Mode MODE>
__global__ void __launch_bounds__(LANES, 12)
    fused_radius_1(const float* __restrict__ guide, const float* __restrict__ p,
                   float* __restrict__ result, float* __restrict__ losses, double epsilon,
                   int groups, int height, int width, int rows) {
    constexpr int N = C + K;
    const int warp = blockIdx.x, lane = threadIdx.x;
    const int strips = (width + STRIP - 1) / STRIP, chunks = (height + rows - 1) / rows;
    const Index group = warp / strips / chunks, size = Index(height) * width;
    const int first = warp / strips % chunks * rows;
    const int last = min(first + rows, height) - 1;
    const float ridge = NU * max(static_cast<float>(epsilon), SMALLEST_NORMAL);

    // This lane's column of pixels, which is also that of its windows, if there are any.
    const int column = warp % strips * STRIP - 1 + lane;
    const int centre_column = min(max(column, 1), width - 2);
    const bool writes = lane >= 1 && lane <= STRIP && column < width;
    const int columns_holding = count(min(max(column, 0), width - 1), width, 1);
    const float column_share = 1.0f / columns_holding;
    // 1/ν if this column, or that to the left or right, has windows, otherwise 0.
    const auto share_of_windows = [=](int column) {
        return column >= 1 && column <= width - 2 ? 1 / NU : 0;
    };
    const float share = share_of_windows(column), left_share = share_of_windows(column - 1),
                right_share = share_of_windows(column + 1);
    const float share_of_sum = ROOT_3 * share, share_of_contrasts = (1 - KAPPA) * share;

    // Windows of the rows before and after reach the pixels, too.
    const int start = max(first - 1, 1), end = min(last + 1, height - 2);
    const Index first_row = Index(start - 1) * width;
    const float* guide_pixel = guide + group / groups * C * size + first_row + centre_column;
    const float* p_pixel = p + group * K * size + first_row + centre_column;
    float* target = result + group * K * size + first_row + column;
    float loss = 0;

    // Two lanes per plane ask for both ends of the strip, some rows ahead.
    const int plane = lane / 2 % N;
    const int strip_end = min(max(column - lane + (lane % 2 ? LANES - 1 : 0), 0), width - 1);
    const float* ahead = (plane < C ? guide + (group / groups * C + plane) * size
                                    : p + (group * K + plane - C) * size) +
                         Index(min(start + 1 + PREFETCHED, height - 1)) * width + strip_end;

    const auto load = [&](Pixels<N>& pixels) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const float* const pixel = n < C ? guide_pixel + n * size : p_pixel + (n - C) * size;
            pixels.left[n] = load_now(pixel - 1);
            pixels.middle[n] = load_now(pixel);
            pixels.right[n] = load_now(pixel + 1);
        }
    };
    const auto advance = [&](int step) {
        guide_pixel += step;
        p_pixel += step;
    };

    // L p of row y, from its pixels, the a_k of all windows around it, added up, and what they
    // leave of its sum.
    const auto finish = [&](int y, const Row<N>& row, const float (&slope)[K][C],
                            const float (&sum)[K], int rows_holding) {
        float products[K];
#pragma unroll
        for (int k = 0; k < K; ++k) {
            // To both contrasts is added what makes to_left and to_right complete.
            const float mean = OVER_ROOT_3 / (1 - KAPPA) * sum[k];
            float u = rows_holding * row.contrasts[C + k].u + mean;
            float v = rows_holding * row.contrasts[C + k].v + mean;
#pragma unroll
            for (int c = 0; c < C; ++c) {
                u -= slope[k][c] * row.contrasts[c].u;
                v -= slope[k][c] * row.contrasts[c].v;
            }
            const float to_left = v - KAPPA * u, to_right = u - KAPPA * v;
            products[k] = share_of_sum * sum[k] - share_of_contrasts * (u + v) +
                          left_share * __shfl_up_sync(ALL_LANES, to_right, 1) +
                          right_share * __shfl_down_sync(ALL_LANES, to_left, 1);
        }
        if (writes && y >= first) {
#pragma unroll
            for (int k = 0; k < K; ++k) {
                float value = 0;
                if constexpr (MODE != PRODUCT) {
                    const Contrasts at = row.contrasts[C + k];
                    constexpr float INVERSE = 1 / (1 - KAPPA * KAPPA);
                    value = row.middle[C + k];
                    if (column < centre_column) value += INVERSE * (at.v + KAPPA * at.u);
                    if (column > centre_column) value += INVERSE * (at.u + KAPPA * at.v);
                }
                target[k * size] =
                    in_mode<MODE>(value, products[k], columns_holding * rows_holding,
                                  column_share * share_of(rows_holding));
                if constexpr (MODE == MATTING_LOSS) loss += value * products[k];
            }
        }
        target += width;
    };

    Pixels<N> pixels;
    Line<N, K> lines[3];
    load(pixels);
    lines[0].row = Row<N>(pixels);
    advance(width);
    load(pixels);
    lines[1].row = Row<N>(pixels);
    lines[0].set_change(lines[1].row);
    advance(width);
    load(pixels);
    int y = start;
    // The windows around row y, after which row y − 1 is complete; whether they are the last ones.
    const auto step = [&](Line<N, K>& above, Line<N, K>& line, Line<N, K>& below) {
        below.row = Row<N>(pixels);
        line.set_change(below.row);
        advance(y < height - 2 ? width : 0);
        load(pixels);  // a row ahead
        prefetch(ahead);
        ahead += y < height - 2 - PREFETCHED ? width : 0;
        regression(above, line, below, ridge);
        float around[K][C];
#pragma unroll
        for (int k = 0; k < K; ++k) {
            Contrasts left = down(above, line, C + k);
#pragma unroll
            for (int c = 0; c < C; ++c) {
                const Contrasts of_colour = down(above, line, c);
                left.u -= line.slope[k][c] * of_colour.u;
                left.v -= line.slope[k][c] * of_colour.v;
                around[k][c] = below.slope[k][c] + above.slope[k][c] + line.slope[k][c];
            }
            above.sum[k] += left.v - KAPPA * left.u;
            line.sum[k] -= (1 - KAPPA) * (left.u + left.v);
            below.sum[k] = left.u - KAPPA * left.v;
        }
        finish(y - 1, above.row, around, above.sum, min(y, 3));
        if (y == end) {
            if (y <= last) {
#pragma unroll
                for (int k = 0; k < K; ++k)
                    for (int c = 0; c < C; ++c) around[k][c] = above.slope[k][c] + line.slope[k][c];
                finish(y, line.row, around, line.sum, min(2, height - 2));
            }
            if (y + 1 <= last) finish(y + 1, below.row, line.slope, below.sum, 1);
        }
        return y++ == end;
    };
    // Three at a time, so that the lines turn without moving.
    while (!(step(lines[0], lines[1], lines[2]) || step(lines[1], lines[2], lines[0]) ||
             step(lines[2], lines[0], lines[1]))) {
    }
    if constexpr (MODE == MATTING_LOSS) {
        for (int distance = LANES / 2; distance > 0; distance /= 2)
            loss += __shfl_down_sync(ALL_LANES, loss, distance);
        if (lane == 0) losses[warp] = loss;
    }
}
