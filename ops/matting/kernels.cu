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
//     window_statistics     guide             -> μ_k, W_k   once per guide
//     window_coefficients   p, I, μ, W        -> a_k, c_k
//     sum_windows           p, I, a, c        -> L p, F p, P p, or the means of a_k and b_k
//
// with W_kᵀ W_k = (Σ_k + ε/|w| Id)⁻¹ and c_k = p_R − a_kᵀ I_R − b_k, what the fit leaves at a pixel
// R of the window. Windows, by the pixel where they begin, fall into cells of 2r x 2r. Those of a
// cell have the pixel R in common that is 2r on from where the cell begins, along both axes: it is
// the R of them all.
//
// How a block of the three works. A block computes a few tiles of results, of up to three channels
// and side by side. A tile is a cell of 2r x 2r windows or pixels or, where shared memory is not
// enough for that, a part of one. Along each axis the windows of a tile hold some lines before
// a line that is in all of them, and some from there on; the pixels of a tile lie in windows of the
// same cell and of the one before. Both are sums back from a line and on from it, prefix sums, so
// every result costs two additions per axis whatever the radius, and nothing is ever subtracted
// (van Herk 1992 and Gil, Werman 1993 find maxima that way). One thread takes a column of what the
// tile needs and leaves what it sums in shared memory, one then takes half a row of that. There are
// no atomics and every sum has one order, so the bits are the same from run to run.
//
// Precision. Every sum is taken over differences to R, never over the values themselves.
// Neighbours are close, so that their difference is exact or nearly so, and errors scale with the
// contrast in the window instead of with its brightness. If R is an outlier, cancellation
// multiplies rounding errors by |w| at most, to 2e-5 at r = 8. Running sums, from which what leaves
// a window is subtracted, would keep the rounding errors of an edge that has long left it. So
// float32 is enough in the two kernels that run for every p, and they are the ones that matter
// where float64 is 64 times slower.
// window_statistics runs once per guide, in float64: it factors matrices whose condition number
// reaches 1e7 at ε = 1e-7, r = 1. It leaves the factor W and not the inverse: on near-grey windows
// the inverse's entries, up to |w|/ε = 9e7, would cancel in float32; W's are their square roots.
// b_k is not formed on the way to L p: with |a_k| up to 1e3 it would cancel against a_kᵀ I_i.
// A constant p gives exactly zero.
//
// Compile with -DTHREADS=, how many a block of the three has, and -DTILING= for one shape of tiles,
// both from cuda.py. Without TILING their shape is that of the arguments.

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

// The shape of the tiles, from tiling() in cuda.py: of side x side results, 2r x 2r at most. A
// block has `tiles` of them: of `at_once` channels of one image, and some of each side by side.
// Channels share the guide in the cache.
struct Tiling {
    int radius, at_once, side, tiles;
};

#ifndef TILING
#define TILING 0, 0, 1, 0
#endif
constexpr Tiling KNOWN = {TILING};

// The shape that the compiler knows, where it does, or else the one given.
__device__ inline Tiling known(const Tiling& given) {
    return KNOWN.radius ? KNOWN : given;
}

// The tiles along one axis: they follow each other, and the last one of a cell ends with it.
struct Axis {
    int length, cell, side, of_cell;  // results; lines of a cell and of a tile; tiles of a cell

    __device__ Axis(int length, const Tiling& tiling)
        : length(length),
          cell(2 * tiling.radius),
          side(tiling.side),
          of_cell((cell + side - 1) / side) {}

    __device__ int tiles() const {
        return length / cell * of_cell + (length % cell + side - 1) / side;
    }
    __device__ int cell_of(int tile) const { return tile / of_cell * cell; }
    __device__ int first_of(int tile) const { return cell_of(tile) + tile % of_cell * side; }
    // How many results a tile has: none, beyond the last one.
    __device__ int count_of(int tile) const {
        const int first = first_of(tile);
        return max(0, min(min(side, cell_of(tile) + cell - first), length - first));
    }
    // Whether that is `side`. By comparing it the compiler (ptxas 13.0 for sm_90) gets a predicate
    // from its VIMNMX.RELU that an H100 leaves false.
    __device__ bool whole(int tile) const {
        return first_of(tile) + side <= min(cell_of(tile) + cell, length);
    }
};

// Where a block of the three works.
struct Block : Tiling {
    Axis down, along;
    int channels, channel;     // of p, and the block's first one
    int first_tile;            // along the rows
    int top_cell, top, rows;   // where its cell and its tiles begin, and the rows of results
    bool all_rows;             // whether these are `side`
    Index image;
    int reach;  // lines of the other image, pixels or windows, that a tile needs
    int pitch;  // of the table

    __device__ Block(const Tiling& tiling, int channels, int height, int width)
        : Tiling(tiling), down(height, tiling), along(width, tiling), channels(channels) {
        const int groups = (channels + at_once - 1) / at_once, abreast = tiles / at_once;
        const int across = (along.tiles() + abreast - 1) / abreast;
        const int place = blockIdx.x / groups, tile = place / across % down.tiles();
        channel = blockIdx.x % groups * at_once;
        first_tile = place % across * abreast;
        top_cell = down.cell_of(tile);
        top = down.first_of(tile);
        rows = down.count_of(tile);
        all_rows = down.whole(tile);
        image = place / across / down.tiles();
        reach = side + 2 * radius;
        pitch = spread(tiles * reach);
    }

    // Twice an odd number, at least so many: see for_each_half_row.
    __device__ static int spread(int columns) { return ((columns + 1) & ~1) | 2; }

    __device__ int along_of(int tile) const { return first_tile + tile / at_once; }
    __device__ int left_of(int tile) const { return along.first_of(along_of(tile)); }
    __device__ int left_cell_of(int tile) const { return along.cell_of(along_of(tile)); }
    __device__ int channel_of(int tile) const { return channel + tile % at_once; }
    __device__ Index plane_of(int tile) const { return image * channels + channel_of(tile); }

    // How many columns of results a tile has: none, beyond the image or its channels.
    __device__ int columns_of(int tile) const {
        return channel_of(tile) < channels ? along.count_of(along_of(tile)) : 0;
    }
    // R of the windows of a tile of windows, in an image of that width.
    __device__ unsigned common_of(int tile, int width) const {
        return (top_cell + 2 * radius) * width + left_cell_of(tile) + 2 * radius;
    }
    // Whether all of its tiles are wholly there, and as large as they come.
    __device__ bool full() const {
        const int last = first_tile + tiles / at_once - 1;
        return all_rows && along.whole(first_tile) && along.whole(last) &&
               channel + at_once <= channels;
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

// The colours of pixels, in one access of 16 bytes for three channels in float.
template <typename Scalar, int C>
struct alignas(C == 1 ? sizeof(Scalar) : 16) Colour {
    Scalar value[C == 1 ? 1 : 4];
};

// Of a window: μ_k − I_R and the lower triangle of W_k.
template <typename Scalar, int C>
struct Window {
    Scalar offset[C], whitening[C * (C + 1) / 2];
};

// What window_statistics leaves of an image: the colours of its pixels, and its windows. These are
// nine values for three channels, the last one apart, so that the others are two accesses.
template <typename Scalar, int C>
class Statistics {
    static constexpr int COLOUR = sizeof(Colour<Scalar, C>) / sizeof(Scalar);
    static constexpr int TOGETHER = C == 1 ? 2 : 8;
    struct alignas(C == 1 ? sizeof(Scalar) : 16) Packed {
        Scalar value[TOGETHER];
    };
    Packed* packed;
    Scalar* last;

  public:
    Colour<Scalar, C>* colours;

    // Images follow each other at multiples of four values, as in cuda.py.
    __device__ Statistics(const Scalar* values, Index image, Index pixels, Index windows) {
        const Index used = pixels * COLOUR + windows * (TOGETHER + (C > 1));
        Scalar* const first = const_cast<Scalar*>(values) + image * ((used + 3) / 4 * 4);
        colours = reinterpret_cast<Colour<Scalar, C>*>(first);
        packed = reinterpret_cast<Packed*>(first + pixels * COLOUR);
        last = first + pixels * COLOUR + windows * TOGETHER;
    }

    __device__ Window<Scalar, C> window(unsigned place) const {
        const Packed read = packed[place];
        Window<Scalar, C> result;
#pragma unroll
        for (int c = 0; c < C; ++c) result.offset[c] = read.value[c];
#pragma unroll
        for (int v = C; v < TOGETHER; ++v) result.whitening[v - C] = read.value[v];
        if constexpr (C > 1) result.whitening[TOGETHER - C] = last[place];
        return result;
    }

    __device__ void put(unsigned place, const Window<Scalar, C>& window) const {
        Packed written;
#pragma unroll
        for (int c = 0; c < C; ++c) written.value[c] = window.offset[c];
#pragma unroll
        for (int v = C; v < TOGETHER; ++v) written.value[v] = window.whitening[v - C];
        packed[place] = written;
        if constexpr (C > 1) last[place] = window.whitening[TOGETHER - C];
    }
};

// What window_coefficients leaves of a window, in one access for three channels in float.
template <typename Scalar, int C>
struct alignas(C == 1 ? 2 * sizeof(Scalar) : 16) Coefficients {
    Scalar residual;  // c_k
    Scalar slope[C];  // a_k
};

// A block's shared memory, tables[value][row][tile · reach + column].
template <typename Real>
__device__ inline Real* shared_table() {
    extern __shared__ double shared_memory[];
    return reinterpret_cast<Real*>(shared_memory);
}

// So many lines are read at a time, if a tile has so many: what bounds these kernels is waiting for
// memory.
template <typename Real>
constexpr int AT_A_TIME = KNOWN.side < 32 / int(sizeof(Real)) ? KNOWN.side : 32 / sizeof(Real);

// Sums over the lines [i, middle) for i < count.
template <int VALUES, typename Real, typename Add, typename Put>
__device__ inline void sum_back(int count, int middle, Add add, Put put) {
    Real sums[VALUES] = {};
    for (int line = middle - 1; line >= count; --line) add(line, sums);
#pragma unroll AT_A_TIME<Real>
    for (int line = count - 1; line >= 0; --line) {
        add(line, sums);
        put(line, sums);
    }
}

// Sums over the lines [middle, last + i] for i < count.
template <int VALUES, typename Real, typename Add, typename Put>
__device__ inline void sum_on(int count, int middle, int last, Add add, Put put) {
    Real sums[VALUES] = {};
    for (int line = middle; line < last; ++line) add(line, sums);
#pragma unroll AT_A_TIME<Real>
    for (int line = 0; line < count; ++line) {
        add(last + line, sums);
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

// For every row of every tile, by two threads, left and right of a column that all results need:
// sums over the columns [i, middle) and [middle, 2r + i], in all tables at once. middle_of(tile)
// gives that column, use_of(tile, row, right) what takes the sums for column i of the results,
// use(i, sums, where the first table has the last column of the sums). Neighbouring threads walk
// apart, in columns of different parity, and rows are twice an odd number apart: so 32 threads meet
// 32 banks.
template <int VALUES, typename Real, typename MiddleOf, typename UseOf>
__device__ inline void for_each_half_row(const Block& block, Real* table, MiddleOf middle_of,
                                         UseOf use_of) {
    const int step = block.side * block.pitch;  // from table to table
    for (int i = threadIdx.x; i < 2 * block.side * block.tiles; i += THREADS) {
        const int right = i % 2, row = i / 2 % block.side, tile = i / 2 / block.side;
        const int columns = block.columns_of(tile);
        if (!columns || row >= block.rows) continue;
        const int middle = middle_of(tile), direction = right ? 1 : -1;
        const int first = right ? middle : middle - 1;
        const auto use = use_of(tile, row, right);
        Real* place = table + row * block.pitch + tile * block.reach + first;
        Real sums[VALUES] = {};
        const auto add = [&] {
#pragma unroll
            for (int v = 0; v < VALUES; ++v) sums[v] += place[v * step];
        };
        const int before = right ? 2 * block.radius - middle : middle - columns;
        for (int n = 0; n < before; ++n, place += direction) add();
        int result = right ? 0 : columns - 1;
#pragma unroll AT_A_TIME<Real>
        for (int n = 0; n < columns; ++n, place += direction, result += direction) {
            add();
            use(result, sums, place);
        }
    }
    __syncthreads();
}

// For every result of the tiles 0, stride, 2 stride, ..., column_of(tile, column)(row): a thread
// keeps to a column as long as it can, for much is the same all the way down.
template <typename ColumnOf>
__device__ inline void for_each_result(const Block& block, int stride, ColumnOf column_of) {
    const int across = block.side * (block.tiles / stride);
    const int step = max(1, THREADS / across);
    if (int(threadIdx.x) >= step * across) return;
    for (int i = threadIdx.x % across; i < across; i += THREADS) {
        const int tile = i / block.side * stride, column = i % block.side;
        if (column >= block.columns_of(tile)) continue;
        const auto use = column_of(tile, column);
#pragma unroll 2
        for (int row = threadIdx.x / across; row < block.rows; row += step) use(row);
    }
}

// Sums over windows. column_of(tile, column) gives what adds a row's pixel of that column to the
// sums. The sums of the window at (row, column) are tables[value][row][tile · reach + column] and
// that 2r columns on, together.
template <int VALUES, typename Real, typename ColumnOf>
__device__ inline void sum_over_windows(const Block& block, Real* table, ColumnOf column_of) {
    const int step = block.side * block.pitch;
    for_each_column(block, table, [&](int tile, int column, Real* out) {
        const auto add = column_of(tile, column);
        const auto walk = [&](int rows) {
            sum_back<VALUES, Real>(
                rows, 2 * block.radius, add, [&](int row, const Real* sums) {
#pragma unroll
                    for (int v = 0; v < VALUES; ++v) out[v * step + row * block.pitch] = sums[v];
                });
            sum_on<VALUES, Real>(
                rows, 2 * block.radius, 2 * block.radius, add, [&](int row, const Real* sums) {
#pragma unroll
                    for (int v = 0; v < VALUES; ++v) out[v * step + row * block.pitch] += sums[v];
                });
        };
        if (block.all_rows)
            walk(block.side);  // which the compiler may know
        else
            walk(block.rows);
    });
    for_each_half_row<VALUES>(
        block, table, [&](int) { return 2 * block.radius; },
        [&](int, int, int) {
            return [=](int, const Real* sums, Real* place) {
#pragma unroll
                for (int v = 0; v < VALUES; ++v) place[v * step] = sums[v];
            };
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
    window_statistics(const Scalar* __restrict__ guide, Scalar* __restrict__ statistics,
                      double epsilon, int height, int width, int radius, int at_once, int side,
                      int tiles) {
    constexpr int PAIRS = C * (C + 1) / 2, VALUES = C + PAIRS;
    const Tiling tiling = known({radius, at_once, side, tiles});
    const int rows = height - 2 * tiling.radius, columns = width - 2 * tiling.radius;
    const Block block(tiling, 1, rows, columns);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Planes<Scalar, C> image(guide + block.image * C * size, size);
    const Statistics<Scalar, C> out(statistics, block.image, size, windows);
    double* const table = shared_table<double>();

    // Σ (I − I_R) and Σ (I − I_R)(I − I_R)ᵀ
    sum_over_windows<VALUES>(block, table, [&](int tile, int column) {
        const unsigned common = block.common_of(tile, width);
        const unsigned first = block.top * width + block.left_of(tile) + column;
        double colour[C];
#pragma unroll
        for (int c = 0; c < C; ++c) colour[c] = image(c, common);
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

    const double area = (2 * tiling.radius + 1) * (2 * tiling.radius + 1), ridge = epsilon / area;
    const int step = block.side * block.pitch;
    for_each_result(block, 1, [&](int tile, int column) {
        const double* const first = table + tile * block.reach + column;
        const int x = block.left_of(tile) + column;
        return [=, &block](int row) {
            const double* const sums = first + row * block.pitch;
            const auto mean_of = [&](int v) {
                return (sums[v * step] + sums[v * step + 2 * block.radius]) / area;
            };
            Window<Scalar, C> known;
            double mean[C], covariance[PAIRS], whitening[PAIRS];
#pragma unroll
            for (int i = 0; i < C; ++i) {
                mean[i] = mean_of(i);
                known.offset[i] = static_cast<Scalar>(mean[i]);
#pragma unroll
                for (int j = 0; j <= i; ++j)
                    covariance[entry(i, j)] =
                        mean_of(C + entry(i, j)) - mean[i] * mean[j] + (i == j ? ridge : 0.0);
            }
            whitening_factor<C>(covariance, ridge, whitening);
#pragma unroll
            for (int e = 0; e < PAIRS; ++e)
                known.whitening[e] = static_cast<Scalar>(whitening[e]);
            out.put((block.top + row) * columns + x, known);
        };
    });
}

// p (B, channels, height, width) -> coefficients (B, channels, height − 2r, width − 2r).
template <typename Scalar, int C>
__global__ void __launch_bounds__(THREADS, sizeof(Scalar) == 4 ? 8 : 4)
    window_coefficients(const Scalar* __restrict__ p, const Scalar* __restrict__ statistics,
                        Coefficients<Scalar, C>* __restrict__ coefficients, int channels,
                        int height, int width, int radius, int at_once, int side, int tiles) {
    const Tiling tiling = known({radius, at_once, side, tiles});
    const int rows = height - 2 * tiling.radius, columns = width - 2 * tiling.radius;
    const Block block(tiling, channels, rows, columns);
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Statistics<Scalar, C> guide(statistics, block.image, size, windows);
    const Colour<Scalar, C>* const colours = guide.colours;
    Scalar* const table = shared_table<Scalar>();

    // Σ (p − p_R) and Σ (I − I_R)(p − p_R)
    sum_over_windows<1 + C>(block, table, [&](int tile, int column) {
        const unsigned common = block.common_of(tile, width);
        const unsigned first = block.top * width + block.left_of(tile) + column;
        const Colour<Scalar, C> colour = colours[common];
        const Scalar* const plane = p + block.plane_of(tile) * size;
        const Scalar value = plane[common];
        return [=](int row, Scalar* sums) {
            const unsigned pixel = first + row * width;
            const Colour<Scalar, C> here = colours[pixel];
            const Scalar dp = plane[pixel] - value;
            sums[0] += dp;
#pragma unroll
            for (int c = 0; c < C; ++c) sums[1 + c] += (here.value[c] - colour.value[c]) * dp;
        };
    });

    const Scalar share = Scalar(1) / ((2 * tiling.radius + 1) * (2 * tiling.radius + 1));
    const int step = block.side * block.pitch;
    for_each_result(block, block.at_once, [&](int tile, int column) {
        const Scalar* const first = table + tile * block.reach + column;
        const unsigned start = block.top * columns + block.left_of(tile) + column;
        const int at_once = min(block.at_once, channels - block.channel);
        Coefficients<Scalar, C>* const out = coefficients + block.plane_of(tile) * windows;
        return [=, &block](int row) {
            const unsigned window = start + row * columns;
            const Window<Scalar, C> known = guide.window(window);
            for (int k = 0; k < at_once; ++k) {
                const Scalar* const sums = first + row * block.pitch + k * block.reach;
                const auto mean_of = [&](int v) {
                    return (sums[v * step] + sums[v * step + 2 * block.radius]) * share;
                };
                const Scalar mean = mean_of(0);  // p̄ − p_R
                Coefficients<Scalar, C> fit = {-mean, {}};
                Scalar covariance[C];
#pragma unroll
                for (int c = 0; c < C; ++c) covariance[c] = mean_of(1 + c) - known.offset[c] * mean;
                // a = Wᵀ (W cov)
#pragma unroll
                for (int i = 0; i < C; ++i) {
                    Scalar whitened = 0;
#pragma unroll
                    for (int j = 0; j <= i; ++j)
                        whitened += known.whitening[entry(i, j)] * covariance[j];
#pragma unroll
                    for (int j = 0; j <= i; ++j)
                        fit.slope[j] += known.whitening[entry(i, j)] * whitened;
                }
                // c = p_R − aᵀ I_R − (p̄ − aᵀ μ)
#pragma unroll
                for (int c = 0; c < C; ++c) fit.residual += fit.slope[c] * known.offset[c];
                out[k * windows + window] = fit;
            }
        };
    });
}

// How many windows of the cells on one side, along one axis, hold the pixel i: those of the cell
// before its own begin in [i − 2r, cell), those of its own in [cell, i]. There are `windows` of
// them, from 0.
__device__ inline int holding(int on, int i, int cell, int windows, int radius) {
    const int last = min(on ? i : cell - 1, windows - 1);
    return max(0, last - max(on ? cell : i - 2 * radius, 0) + 1);
}

// (L p)_i = Σ_k (p_i − a_kᵀ I_i − b_k), the sum of what the fits leave at pixel i, in an output
// mode, (B, channels, height, width), or, for COEFFICIENTS, (B, channels, C + 1, height, width): the
// means of a_k and b_k over the windows that hold i. They give the guided filter, āᵀ I_i + b̄ =
// p_i − (L p)_i / D_i.
//
// The windows that hold a pixel are of four cells, each with its own R. With Σ over those of one,
//
//     Σ_k (p_i − a_kᵀ I_i − b_k) = Σ_k c_k + n (p_i − p_R) − (Σ_k a_k)ᵀ (I_i − I_R)
//
// The cells above come first, then those below.
template <typename Scalar, int C, Mode MODE>
__global__ void __launch_bounds__(THREADS, sizeof(Scalar) == 4 ? 7 : 4)
    sum_windows(const Scalar* __restrict__ p, const Scalar* __restrict__ statistics,
                const Coefficients<Scalar, C>* __restrict__ coefficients,
                Scalar* __restrict__ result, int channels, int height, int width, int radius,
                int at_once, int side, int tiles) {
    constexpr int VALUES = 1 + C;                              // c, a
    constexpr int RESULTS = MODE == COEFFICIENTS ? 1 + C : 1;  // Σ (c − aᵀ (I − I_R)), Σ a
    const Block block(known({radius, at_once, side, tiles}), channels, height, width);
    const int reach_back = 2 * block.radius;
    const int rows = height - reach_back, columns = width - reach_back;
    const Index size = Index(height) * width, windows = Index(rows) * columns;
    const Colour<Scalar, C>* const colours =
        Statistics<Scalar, C>(statistics, block.image, size, windows).colours;
    Scalar* const table = shared_table<Scalar>();
    const int step = block.side * block.pitch;
    Scalar* const palette = table + VALUES * step;  // the tiles' colours, [c][row][column]
    const int abreast = block.tiles / block.at_once;
    const int palette_pitch = Block::spread(block.side * abreast);
    const int palette_step = block.side * palette_pitch;
    Scalar* const kept = palette + C * palette_step;  // [result][row][column]
    const int kept_pitch = Block::spread(block.side * block.tiles);
    const int kept_step = block.side * kept_pitch;

    // R of the windows of a cell. Where there are none it may be any pixel.
    const auto common = [&](int tile, int below, int right) {
        const int y = min(block.top_cell + (below ? reach_back : 0), height - 1);
        const int x = min(block.left_cell_of(tile) + (right ? reach_back : 0), width - 1);
        return unsigned(y * width + x);
    };

    for_each_result(block, block.at_once, [&](int tile, int column) {
        const int x = block.left_of(tile) + column;
        Scalar* const out = palette + tile / block.at_once * block.side + column;
        return [=, &block](int row) {
            const Colour<Scalar, C> here = colours[unsigned((block.top + row) * width + x)];
#pragma unroll
            for (int c = 0; c < C; ++c)
                out[c * palette_step + row * palette_pitch] = here.value[c];
        };
    });
    // The line of windows where those of the cells below begin, from the tile's top − 2r.
    const int middle = reach_back - (block.top - block.top_cell);
    const int last = block.first_tile + abreast - 1;
    const bool inner =
        block.full() && block.top >= reach_back && block.top + block.side <= rows &&
        block.along.first_of(block.first_tile) >= reach_back &&
        block.along.first_of(last) + block.side <= columns;
    for (int below = 0; below < 2; ++below) {
        const auto sum_columns = [&](bool all_there) {
            for_each_column(block, table, [&](int tile, int column, Scalar* out) {
                const int top = block.top - reach_back;
                const int x = block.left_of(tile) + column - reach_back;
                const Coefficients<Scalar, C>* const fits =
                    coefficients + block.plane_of(tile) * windows;
                const int start = top * columns + x;
                const auto add = [&](int row, Scalar* sums) {
                    Coefficients<Scalar, C> fit = {};
                    if (all_there || (unsigned(x) < unsigned(columns) &&
                                      unsigned(top + row) < unsigned(rows)))
                        fit = fits[unsigned(start + row * columns)];
                    sums[0] += fit.residual;
#pragma unroll
                    for (int c = 0; c < C; ++c) sums[1 + c] += fit.slope[c];
                };
                const auto put = [&](int row, const Scalar* sums) {
#pragma unroll
                    for (int v = 0; v < VALUES; ++v) out[v * step + row * block.pitch] = sums[v];
                };
                const int count = all_there ? block.side : block.rows;
                if (below)
                    sum_on<VALUES, Scalar>(count, middle, reach_back, add, put);
                else
                    sum_back<VALUES, Scalar>(count, middle, add, put);
            });
        };
        if (inner)
            sum_columns(true);
        else
            sum_columns(false);
        // Σ (c − aᵀ (I − I_R)) takes the place of Σ c.
        for_each_half_row<VALUES>(
            block, table,
            [&](int tile) {
                return reach_back - (block.left_of(tile) - block.left_cell_of(tile));
            },
            [&](int tile, int row, int right) {
                const Colour<Scalar, C> colour = colours[common(tile, below, right)];
                const Scalar* const here =
                    palette + row * palette_pitch + tile / block.at_once * block.side;
                return [=](int column, const Scalar* sums, Scalar* place) {
                    Scalar left = sums[0];
#pragma unroll
                    for (int c = 0; c < C; ++c)
                        left -= sums[1 + c] * (here[c * palette_step + column] - colour.value[c]);
                    place[0] = left;
#pragma unroll
                    for (int v = 1; v < RESULTS; ++v) place[v * step] = sums[v];
                };
            });
        // Of the cells above it is put aside.
        for_each_result(block, 1, [&](int tile, int column) {
            const Scalar* const first = table + tile * block.reach + column;
            Scalar* const aside = kept + tile * block.side + column;
            const auto total = [=, &block](int v, int row) {
                const Scalar* const sums = first + v * step + row * block.pitch;
                return sums[0] + sums[reach_back];
            };
            const int x = block.left_of(tile) + column, cell = block.left_cell_of(tile);
            const int columns_holding = count(x, width, block.radius);
            const Scalar* const plane = p + block.plane_of(tile) * size;
            Scalar* const out = result + block.plane_of(tile) * RESULTS * size;
            Scalar holding_x[2], values[2][2];
#pragma unroll
            for (int right = 0; right < 2; ++right) {
                holding_x[right] = holding(right, x, cell, columns, block.radius);
#pragma unroll
                for (int lower = 0; lower < 2; ++lower)
                    values[lower][right] = below ? plane[common(tile, lower, right)] : Scalar(0);
            }
            return [=, &block](int row) {
                Scalar* const apart = aside + row * kept_pitch;
                if (!below) {
#pragma unroll
                    for (int v = 0; v < RESULTS; ++v) apart[v * kept_step] = total(v, row);
                    return;
                }
                const int y = block.top + row;
                const unsigned here = y * width + x;
                const Scalar value = plane[here];
                Scalar product = total(0, row) + apart[0];
#pragma unroll
                for (int lower = 0; lower < 2; ++lower) {
                    const Scalar rows_holding =
                        holding(lower, y, block.top_cell, rows, block.radius);
#pragma unroll
                    for (int right = 0; right < 2; ++right)
                        product += rows_holding * holding_x[right] * (value - values[lower][right]);
                }
                const int held = count(y, height, block.radius) * columns_holding;  // D_i
                if constexpr (MODE == COEFFICIENTS) {
                    Scalar offset = value - product / held;
                    const Colour<Scalar, C> colour = colours[here];
#pragma unroll
                    for (int c = 0; c < C; ++c) {
                        const Scalar mean = (total(1 + c, row) + apart[(1 + c) * kept_step]) / held;
                        out[c * size + here] = mean;
                        offset -= mean * colour.value[c];
                    }
                    out[C * size + here] = offset;
                } else {
                    out[here] = in_mode<MODE>(value, product, held, 1 / Scalar(held));
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
//     d = x₊ − x₋,   q = (x₋ − 2 x₀ + x₊) / √3,
//
// both of the squared norm ν = 2. So a window of nine pixels is its mean and eight coordinates: the
// contrasts of each of its rows, and those of the three rows' sums over √3. All have the norm √ν.
// Those of a row serve three windows, and so do their products with the first channel's.
//
// A window is a least squares problem: columns X of colours in these coordinates, with √(ν ε) Id
// below them, and p. Modified Gram-Schmidt, in float32, makes the columns orthogonal. Its error goes
// with the condition number of X; that of normal equations would go with its square, 1e7. With X not
// divided by |w|, the ridge is ε itself.
//
// What a window leaves of p in one of its rows has the contrasts d(p) − a_kᵀ d(I), q(p) − a_kᵀ q(I):
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
constexpr float NU = 2;
constexpr int OF_ROWS = 6, COORDINATES = 8;

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

// Without a branch.
__device__ inline void store_if(bool condition, float* address, float value) {
#ifdef __CUDA_ARCH__
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %0, 0; @p st.global.f32 [%1], %2; }" ::"r"(
                     int(condition)),
                 "l"(address), "f"(value));
#else
    if (condition) *address = value;
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
    float d, q;

    __device__ Contrasts() {}
    __device__ Contrasts(float before, float after)
        : d(after - before), q(OVER_ROOT_3 * (before + after)) {}
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
    Contrasts contrasts[N];
    float products[N];  // of the first channel's contrasts and each one's

    __device__ Row() {}
    __device__ explicit Row(const Pixels<N>& pixels) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
            middle[n] = pixels.middle[n];
            contrasts[n] = Contrasts(pixels.left[n] - middle[n], pixels.right[n] - middle[n]);
            products[n] = contrasts[0].d * contrasts[n].d;
            products[n] = fmaf(contrasts[0].q, contrasts[n].q, products[n]);
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
                        (next.contrasts[n].q - row.contrasts[n].q);
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
            x[n][2 * i] = of_rows[i].d;
            x[n][2 * i + 1] = of_rows[i].q;
        }
    }
    float taken[N][C];  // x[n] is what it was but for Σ_m taken[n][m] X_m
#pragma unroll
    for (int j = 0; j < C; ++j) {
        float products[N];
#pragma unroll
        for (int n = j; n < N; ++n) {
            products[n] = j > 0 ? x[j][0] * x[n][0]
                                : above.row.products[n] + line.row.products[n] +
                                      below.row.products[n];
#pragma unroll
            for (int i = j == 0 ? OF_ROWS : 1; i < COORDINATES; ++i)
                products[n] = fmaf(x[j][i], x[n][i], products[n]);
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
    const Index group = warp / strips / chunks;
    const unsigned size = unsigned(height) * width;
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
    const float share_of_sum = ROOT_3 * share, share_of_contrasts = 2 * OVER_ROOT_3 * share;

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
            // With the sum, to_left and to_right are complete.
            float d = rows_holding * row.contrasts[C + k].d;
            float q = rows_holding * row.contrasts[C + k].q + sum[k];
#pragma unroll
            for (int c = 0; c < C; ++c) {
                d -= slope[k][c] * row.contrasts[c].d;
                q -= slope[k][c] * row.contrasts[c].q;
            }
            const float to_left = OVER_ROOT_3 * q - d, to_right = OVER_ROOT_3 * q + d;
            products[k] = share_of_sum * sum[k] - share_of_contrasts * q +
                          left_share * __shfl_up_sync(ALL_LANES, to_right, 1) +
                          right_share * __shfl_down_sync(ALL_LANES, to_left, 1);
        }
        const bool stores = writes & (y >= first);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            float value = 0;
            if constexpr (MODE != PRODUCT) {
                const Contrasts at = row.contrasts[C + k];
                value = row.middle[C + k];
                if (column < centre_column) value += (ROOT_3 * at.q - at.d) / 2;
                if (column > centre_column) value += (ROOT_3 * at.q + at.d) / 2;
            }
            store_if(stores, target + k * size,
                     in_mode<MODE>(value, products[k], columns_holding * rows_holding,
                                   column_share * share_of(rows_holding)));
            if constexpr (MODE == MATTING_LOSS) loss += stores ? value * products[k] : 0;
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
                left.d -= line.slope[k][c] * of_colour.d;
                left.q -= line.slope[k][c] * of_colour.q;
                around[k][c] = below.slope[k][c] + above.slope[k][c] + line.slope[k][c];
            }
            above.sum[k] += OVER_ROOT_3 * left.q - left.d;
            line.sum[k] -= 2 * OVER_ROOT_3 * left.q;
            below.sum[k] = OVER_ROOT_3 * left.q + left.d;
        }
        finish(y - 1, above.row, around, above.sum, min(y, 3));
        if (y < end) {
            ++y;
            return false;
        }
        if (y <= last) {
#pragma unroll
            for (int k = 0; k < K; ++k)
                for (int c = 0; c < C; ++c) around[k][c] = above.slope[k][c] + line.slope[k][c];
            finish(y, line.row, around, line.sum, min(2, height - 2));
        }
        if (y + 1 <= last) finish(y + 1, below.row, line.slope, below.sum, 1);
        return true;
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
