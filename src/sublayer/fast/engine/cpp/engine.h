// The engine's interface: what a program is, and how it is run. Plain C, read from Python by ctypes.
//
// A model lowers itself to a program: operations over buffers, each a table of float32 numbers with a row for every new
// token. The engine runs it on a CPU, with matrices in float32, bfloat16, int8 or four bits.
//
// Letters: N new tokens in all, R rows (hypotheses), n new tokens of each row (N = R n, those of a row side by side),
// B sources, S positions of the sources, H query heads, G key-value heads, d width of a head, C capacity of the cache,
// L positions of the model.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

// How a matrix is kept. INT8 has a scale for each row of the matrix; INT4 a scale and a minimum for each 32 numbers of a row,
// in float16. The others hold what types of GGUF hold, to the last number: Q8_0 eight bits with a scale for each 32 numbers;
// Q4_K four bits, and Q6_K eight, with a scale and a minimum in float32 for each 32 and each 16 numbers.
// What is multiplied by a matrix of whole numbers is rounded to int8 itself, with a scale for each 32 of its numbers: the
// largest becomes 127, or less, where four that are multiplied together (`round_row`) would sum to more than 256.
enum Format { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3, Q8_0 = 4, Q4_K = 5, Q6_K = 6 };

enum Activation { NO_ACTIVATION = 0, RELU = 1, GELU = 2, GELU_TANH = 3, SILU = 4, TANH = 5 };

enum Code {
    EMBED = 0,   // out = a * matrix[token] + table[position]; table [L, width], or none
    NORM = 1,    // out = weight * normalized(in) + bias, each of `parts` equal parts of the columns by itself; eps a
    LINEAR = 2,  // out = activation(in matrix^T + bias)
    ROTATE = 3,  // in place: the first `width` numbers of each of `heads` heads turned; table cos, table2 sin [L, width / 2]
    ATTEND = 4,  // self-attention; in holds H queries, G keys, G values side by side
    CROSS = 5,   // attention to the sources; in holds H queries
    GATE = 6,    // out = activation(in[:width]) * in[width:2 width]
    ADD = 7,     // out += in
    SCALE = 8,   // out = a * in
    CAP = 9,     // out = a * tanh(in / a)
    MIX = 10,    // out = the sum of the weighted networks of the `active` best of `experts`; `width` is their hidden width
    STORE = 11,  // in holds G keys and G values of sources side by side; they go to the memory of `layer`
};

enum Flag {
    ACCUMULATE = 1,   // LINEAR: out += what is found
    ROOT_MEAN = 2,    // NORM: RMSNorm; without it LayerNorm
    INTERLEAVED = 4,  // ROTATE: pairs (2 i, 2 i + 1); without it (i, i + width / 2)
    CACHED = 8,       // ATTEND: keys go to the cache, and a token sees itself and what is before it; without it a token
                      // sees all real tokens of its own row, and there is no cache
    NORMALIZE = 16,   // MIX: the weights of the chosen experts sum to 1
    SQUARED = 32,     // LINEAR: out = activation(...) ^ 2
    CLAMPED = 64,     // NORM: what is divided by is a at the least; without it the root of its square plus a
};

typedef struct {
    int32_t format;
    int64_t out, in;   // rows and columns of the matrix as the model has it
    const void* data;  // as `matrix_pack` wrote it, aligned to 64 bytes
} Matrix;

// One operation. What it does not use is 0. Columns: the operation reads numbers [column, column + width) of each row of
// `in`; it writes from column `out_column` on.
typedef struct {
    int32_t code, flags, activation;
    int32_t in, out;                // buffers
    int32_t column, out_column, width;
    int32_t matrix;                 // EMBED, LINEAR; MIX: its router, after which come gate_up and down of each expert
    int32_t parts;                  // NORM
    int32_t heads, groups, head;    // ATTEND, CROSS, ROTATE: H, G, d
    int32_t layer;                  // ATTEND with a cache, CROSS: whose keys
    int32_t window;                 // ATTEND: a token sees positions no farther away than window - 1; 0 for all
    int32_t experts, active;        // MIX: gate_up [2 width, in], of which the first half is the gate; down [out, width]
    float a;                        // scale of EMBED, SCALE and of attention's scores; eps; cap of CAP
    float cap;                      // ATTEND, CROSS: scores become cap * tanh(score / cap); 0 for none
    const float* weight;            // NORM: [width / parts]
    const float* bias;              // NORM, LINEAR; or none
    const float* table;             // EMBED, ROTATE; ATTEND: added to scores, by distance: [H, 2 L - 1], key - query + L - 1
    const float* table2;
    int64_t positions;              // L
} Op;

// Some of the columns of the last operation, a LINEAR: no others are computed. Of these the rows of a source choose among
// their own, as if there were no others. What `best_columns` then holds counts in `matrix`.
typedef struct {
    const Matrix* matrix;   // rows of the operation's matrix
    const float* bias;      // of these; or none
    int64_t most;           // the most that a source has
    const int32_t* choices; // [B, most]: which rows of `matrix`, ascending
    const int64_t* counts;  // [B]: how many
} Shortlist;

typedef struct Engine Engine;

typedef struct {
    const int64_t* tokens;          // [R, n]
    int64_t rows, fresh;            // R, n
    int64_t held, capacity;         // positions in the cache, C
    float* cache;                   // [layers, 2, R, G, C, d]
    const int32_t* cache_rows;      // [R, C]: in which row of the cache each of a row's positions stands; or none, where
                                    // all are in its own. New ones go to its own
    const int64_t* padding;         // [R]: how many of the first positions of the row's cache are padding, or none. A
                                    // token's position is its place in the row less the padding, and 0 at the least
    const int64_t* lengths;         // [R]: without a cache, how many of the n are real; or none for all
    int64_t sources, source_length; // B, S; R / B rows belong to a source, side by side
    float* const* memory;           // [2 layers]: keys, then values, of each layer, [B, G, S, d]; STORE writes them, and
                                    // B, S are then R, n
    const int64_t* source_lengths;  // [B], or none for all
    int64_t count;                  // how many operations of the program to run, from the first on
    int32_t result;                 // which buffer to copy to `out`
    float* out;                     // [N, width of the buffer]; or none
    int64_t best;                   // how many of the largest numbers of each row of that buffer are wanted
    int64_t* best_columns;          // [N, best]: where they stand, the largest first, of equal ones the first
    float* best_logs;               // [N, best]: log softmax there
    const Shortlist* shortlist;     // what alone may be among the best; or none
} Call;

// Bytes of Op, Call and Matrix, as one number: whoever was written for other ones must not call.
int64_t interface_bytes(void);
// Bytes of a matrix once packed; a multiple of 64. 0 where the format does not fit (whole numbers want columns in 32s).
int64_t matrix_bytes(int32_t format, int64_t out, int64_t in);
// The format of the fewest bytes in which `weights` [out, in] lose nothing, as those of a GGUF file do not in that of their
// type. Of Q4_K and Q6_K the numbers of such a file are sums, rounded to float32; the last of their bits may differ.
int32_t exact_format(int64_t out, int64_t in, const float* weights);
// Round `weights` [out, in] to the format and lay them out as the products read them: the same on every processor. What
// `exact_format` finds loses nothing.
void matrix_pack(int32_t format, int64_t out, int64_t in, const float* weights, void* packed);
// Some rows of a packed matrix as one of its own, packed as it is.
void matrix_take(const Matrix* matrix, int64_t count, const int64_t* rows, void* packed);
// The numbers that the packed matrix stands for, [out, in].
void matrix_unpack(const Matrix* matrix, float* weights);
// What an int8 product makes of its input, [rows, in] -> the numbers that it multiplies.
void round_input(int64_t rows, int64_t in, const float* x, float* rounded);
// y [rows, out] = x [rows, in] matrix^T, for tests and for measuring. 0, or -1 where `isa` is not to be had.
int32_t multiply(const char* isa, const Matrix* matrix, int64_t rows, const float* x, float* y, int32_t threads);

// Instruction sets that this processor has, the best first, separated by spaces: "avx512 avx2 plain".
const char* instruction_sets(void);

// A program, which must outlive the engine, as must all that it points to. `isa` is one of the above. NULL for no memory
// or an `isa` that is not to be had.
Engine* engine_new(const char* isa, const Op* ops, int64_t count, const Matrix* matrices, const int64_t* widths,
                   int64_t buffers, int32_t threads);
void engine_free(Engine* engine);
// 0; -1 for no memory; -2 where a token has no row in the table of an EMBED; -3 for a shortlist of what is not the last
// operation, a LINEAR.
int32_t engine_run(Engine* engine, const Call* call);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
