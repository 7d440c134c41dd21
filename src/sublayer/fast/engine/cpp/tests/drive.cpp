// Runs everything that the engine has, over odd sizes and on every instruction set, for the sanitizers to watch: memory of
// exactly the size that is needed, programs of every operation. That results are right is for other tests; here those of
// all instruction sets and numbers of threads must agree; it fails where some did not. Says which they were, and a sum of
// packed matrices, which is the same on every processor.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine.h"

namespace {

uint64_t state = 1;

uint32_t random_bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

int64_t below(int64_t end) { return random_bits() % end; }

float random_number() { return (float)below(20001) / 10000.0f - 1.0f; }

// Memory that is given back at the end of a round.
struct Block {
    void* data;
    Block* next;
} * blocks;

void* room(int64_t bytes) {
    Block* const block = (Block*)malloc(sizeof(Block));
    // Rounded up to what `aligned_alloc` wants, and no byte more.
    block->data = bytes % 64 == 0 && bytes ? aligned_alloc(64, (size_t)bytes) : malloc((size_t)bytes);
    block->next = blocks;
    blocks = block;
    return block->data;
}

void give_back() {
    while (blocks) {
        Block* const next = blocks->next;
        free(blocks->data);
        free(blocks);
        blocks = next;
    }
}

float* numbers(int64_t count) {
    float* const found = (float*)room(4 * count);
    for (int64_t i = 0; i < count; i++) found[i] = random_number();
    return found;
}

// The same with NaN and infinity among them, as a model has them whose numbers have grown too large.
float* wild_numbers(int64_t count) {
    float* const found = numbers(count);
    for (int64_t i = 0; i < count; i += 1 + below(40)) found[i] = below(2) ? NAN : INFINITY;
    return found;
}

Matrix packed(int32_t format, int64_t out, int64_t in) {
    void* const data = room(matrix_bytes(format, out, in));
    matrix_pack(format, out, in, numbers(out * in), data);
    return Matrix{format, out, in, data};
}

// Before anything else, so that the numbers are the same on every processor.
uint64_t sum_of_packed(int rounds) {
    uint64_t sum = 0;
    for (; rounds > 0; rounds--)
        for (int32_t format = FLOAT32; format <= Q6_K; format++) {
            const int64_t out = 1 + below(70), in = 32 * (1 + below(9)), size = matrix_bytes(format, out, in);
            const uint8_t* const data = (const uint8_t*)packed(format, out, in).data;
            for (int64_t i = 0; i < size; i++) sum = sum * 31 + data[i];
            give_back();
        }
    return sum;
}

int failures = 0;

// Relative to the largest number.
void agree(const char* what, const char* isa, const float* a, const float* b, int64_t count, double tolerance) {
    double largest = 1e-30, error = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(a[i]));
        // Of a choice within `fmax` GCC 12 for Arm makes no vectors, but crashes.
        const double off = fabs((double)a[i] - b[i]);
        if (!(off <= error)) error = off < 1e30 ? off : 1e30;
    }
    if (error <= tolerance * largest) return;
    printf("%s on %s: %g of %g\n", what, isa, error, largest);
    failures++;
}

// The next of the names that are separated by spaces.
bool next_name(const char** from, char* name) {
    const size_t length = strcspn(*from, " ");
    if (length == 0) return false;
    memcpy(name, *from, length);
    name[length] = 0;
    *from += length + ((*from)[length] == ' ');
    return true;
}

void products() {
    const int64_t out = 1 + below(70);
    for (int32_t format = FLOAT32; format <= Q6_K; format++) {
        const int64_t in = format >= INT8 ? 32 * (1 + below(9)) : 1 + below(300), rows = 1 + below(40);
        const Matrix matrix = packed(format, out, in);
        float* const unpacked = (float*)room(4 * out * in);
        matrix_unpack(&matrix, unpacked);
        const float* x = numbers(rows * in);
        float* const read = (float*)room(4 * rows * in);
        memcpy(read, x, 4 * (size_t)(rows * in));
        if (format >= INT8) round_input(rows, in, x, read);
        float* const expected = (float*)room(4 * rows * out);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t o = 0; o < out; o++) {
                double sum = 0;
                for (int64_t k = 0; k < in; k++) sum += (double)read[r * in + k] * unpacked[o * in + k];
                expected[r * out + o] = (float)sum;
            }
        char isa[32];
        for (const char* names = instruction_sets(); next_name(&names, isa);) {
            float* const y = (float*)room(4 * rows * out);
            if (multiply(isa, &matrix, rows, x, y, 1 + (int32_t)below(3))) failures++;
            agree("a product", isa, expected, y, rows * out, 1e-5);
        }
    }
}

// A program of every operation, run with a cache, sources and padding, then without a cache.
void programs() {
    const int32_t heads_of[] = {1, 2, 4, 6, 9}, head_of[] = {2, 4, 6, 16, 20, 64};
    const int32_t heads = heads_of[below(5)], head = head_of[below(6)];
    int32_t groups = heads;
    while (heads % (groups = 1 + (int32_t)below(heads))) continue;
    const int32_t width = 32 * (1 + (int32_t)below(3)), hidden = 32 * (1 + (int32_t)below(3));
    const int32_t inner = heads * head, all = inner + 2 * groups * head, format = (int32_t)below(7), layer = 1;
    const int32_t plain = format >= INT8 && inner % 32 ? FLOAT32 : format;
    const int64_t rows = 1 + below(4), beam = 1 + below(3), fresh = 1 + below(30), held = below(40), length = 1 + below(20);
    const int64_t positions = 128, vocabulary = 50, experts = 3, sources = rows, many = rows * beam;
    Matrix matrices[16] = {packed(format, vocabulary, width), packed(format, all, width), packed(plain, width, inner),
                           packed(format, inner, width),      packed(plain, width, inner), packed(format, 2 * hidden, width),
                           packed(format, width, hidden),     packed(FLOAT32, experts, width)};
    for (int e = 0; e < experts; e++) {
        matrices[8 + 2 * e] = packed(format, 2 * hidden, width);
        matrices[9 + 2 * e] = packed(format, width, hidden);
    }
    matrices[14] = packed(format, 2 * groups * head, width);
    const int64_t widths[] = {width, width + 3, all, inner, 2 * hidden, hidden, 2 * groups * head};
    const float *cos = numbers(positions * head / 2), *sin = numbers(positions * head / 2);
    Op ops[24] = {};
    int64_t count = 0;
    const auto op = [&](int32_t code, int32_t in, int32_t out, int32_t columns, int32_t matrix) {
        Op* const made = &ops[count++];
        made->code = code, made->in = in, made->out = out, made->width = columns, made->matrix = matrix;
        made->parts = 1, made->heads = heads, made->groups = groups, made->head = head, made->layer = layer, made->a = 0.5f;
        made->positions = positions;
        return made;
    };
    const bool stores = below(3) == 0;
    const bool cached = !stores && below(2);
    const bool wild = below(4) == 0;
    op(EMBED, 0, 0, width, 0)->table = wild ? wild_numbers(positions * width) : numbers(positions * width);
    Op* made = op(NORM, 0, 1, width, 0);
    made->out_column = 3, made->weight = numbers(width / 2), made->parts = 2, made->flags = (int32_t)below(2) * ROOT_MEAN;
    made->bias = below(2) ? numbers(width / 2) : NULL;
    made = op(LINEAR, 1, 2, width, 1);
    made->column = 3, made->bias = numbers(all);
    made = op(ROTATE, 2, 2, head, 0);
    made->heads = heads + groups, made->table = cos, made->table2 = sin, made->flags = (int32_t)below(2) * INTERLEAVED;
    made = op(ATTEND, 2, 3, all, 0);
    made->flags = cached ? CACHED : 0, made->window = (int32_t)below(3) * 5, made->cap = (float)below(2) * 3;
    made->table = below(2) ? numbers(heads * (2 * positions - 1)) : NULL;
    made = op(LINEAR, 3, 0, inner, 2);
    made->flags = ACCUMULATE, made->activation = (int32_t)below(6);
    if (stores) {
        op(LINEAR, 0, 6, width, 14);
        op(STORE, 6, 6, 2 * groups * head, 0);
    } else {
        op(LINEAR, 0, 3, width, 3);
        op(CROSS, 3, 3, inner, 0)->cap = (float)below(2) * 2;
        op(LINEAR, 3, 0, inner, 4)->flags = ACCUMULATE | SQUARED;
    }
    op(CAP, 0, 0, width, 0);
    op(LINEAR, 0, 4, width, 5);
    const int64_t projected = count;
    op(GATE, 4, 5, hidden, 0)->activation = (int32_t)below(6);
    op(LINEAR, 5, 1, hidden, 6);
    op(ADD, 1, 0, width, 0);
    made = op(MIX, 0, 1, hidden, 7);
    made->experts = experts, made->active = 2, made->activation = SILU, made->flags = (int32_t)below(2) * NORMALIZE;
    made->out_column = 2;
    op(SCALE, 1, 0, width, 0)->column = 2;

    const int64_t capacity = held + fresh, tokens = many * fresh, cache_size = 2 * 2 * many * groups * capacity * head;
    int64_t *ids = (int64_t*)room(8 * tokens), *padding = (int64_t*)room(8 * many), *lengths = (int64_t*)room(8 * many);
    int64_t* const source_lengths = (int64_t*)room(8 * sources);
    for (int64_t i = 0; i < tokens; i++) ids[i] = below(vocabulary);
    for (int64_t i = 0; i < many; i++) padding[i] = below(held + 2), lengths[i] = below(fresh + 1);
    for (int64_t i = 0; i < sources; i++) source_lengths[i] = below(length + 1);
    const float* const cache = numbers(cache_size);
    int32_t* const cache_rows = (int32_t*)room(4 * many * capacity);
    for (int64_t i = 0; i < many * capacity; i++) cache_rows[i] = (int32_t)below(many);
    const bool by_table = below(2);
    float* memory[4];
    for (int i = 0; i < 4; i++) memory[i] = numbers((stores ? many * fresh : sources * length) * groups * head);
    float* first = NULL;
    char isa[32];
    for (const char* names = instruction_sets(); next_name(&names, isa);)
        for (int32_t threads = 1; threads <= 3; threads += 2) {
            float *own = (float*)room(4 * cache_size), *found = (float*)room(4 * tokens * width);
            memcpy(own, cache, 4 * (size_t)cache_size);
            Engine* const engine = engine_new(isa, ops, count, matrices, widths, 7, threads);
            Call call = {};
            call.tokens = ids, call.rows = many, call.fresh = fresh, call.count = count, call.out = found;
            call.held = cached ? held : 0, call.capacity = capacity, call.cache = own;
            call.cache_rows = by_table ? cache_rows : NULL;
            call.padding = cached ? padding : NULL, call.lengths = cached ? NULL : lengths;
            call.sources = stores ? many : sources, call.source_length = stores ? fresh : length;
            call.memory = memory, call.source_lengths = source_lengths;
            if (!engine || engine_run(engine, &call) || engine_run(engine, &call)) failures++;
            // What is most probable, of a product that nobody else reads, and of one that is written.
            const int64_t best = 1 + below(9);
            for (int32_t written = 0; written < 2; written++) {
                call.count = projected, call.result = 4, call.best = best;
                call.out = written ? (float*)room(8 * tokens * hidden) : NULL;
                call.best_columns = (int64_t*)room(8 * tokens * best), call.best_logs = (float*)room(4 * tokens * best);
                if (!engine || engine_run(engine, &call)) failures++;
            }
            // The same of some of its columns, of which each source chooses among its own.
            const Matrix* const last = &matrices[5];
            const int64_t listed = 1 + below(last->out), most = listed;
            int64_t *columns = (int64_t*)room(8 * listed), *counts = (int64_t*)room(8 * call.sources);
            int32_t* const choices = (int32_t*)room(4 * call.sources * most);
            for (int64_t i = 0; i < listed; i++) columns[i] = below(last->out);
            for (int64_t source = 0; source < call.sources; source++) {
                counts[source] = 0;
                for (int32_t i = 0; i < listed; i++)
                    if (i == 0 || below(2)) choices[source * most + counts[source]++] = i;
            }
            const Matrix few = {format, listed, last->in, room(matrix_bytes(format, listed, last->in))};
            matrix_take(last, listed, columns, (void*)few.data);
            const Shortlist shortlist = {&few, below(2) ? numbers(listed) : NULL, most, choices, counts};
            call.out = NULL, call.shortlist = &shortlist;
            if (!engine || engine_run(engine, &call)) failures++;
            call.count = count;
            if (!engine || engine_run(engine, &call) != -3) failures++;
            engine_free(engine);
            // What stands between two whole numbers is rounded to either, and experts that are nearly equal may change
            // places: with whole numbers only the memory is watched, as it is where numbers are not finite.
            if (first && format < INT8 && !wild) agree("a program", isa, first, found, tokens * width, 1e-3);
            if (!first) first = found;
        }
}

}  // namespace

int main(int, char** arguments) {
    const int rounds = atoi(arguments[1]);
    printf("%s; packed %016llx\n", instruction_sets(), (unsigned long long)sum_of_packed(rounds));
    for (int round = 0; round < rounds; round++) {
        products();
        programs();
        give_back();
    }
    return failures != 0;
}
