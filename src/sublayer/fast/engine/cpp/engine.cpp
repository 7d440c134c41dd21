// Running a program: memory for its buffers, and its operations, each divided among the threads.
#include "engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "matrix.h"
#include "pool.h"

namespace {

// What is worth a part of its own, in products and sums; some microseconds.
constexpr int64_t GRAIN = 200000;

struct Memory {
    char* data;
    int64_t bytes;
};

// Room for so many bytes; what was there may be lost. Never less than before.
bool grow(Memory* memory, int64_t bytes) {
    if (bytes <= memory->bytes) return true;
    // A process that is forked meanwhile must not find what was given back.
    char* const old = memory->data;
    *memory = Memory{NULL, 0};
    free(old);
    // What does not fit a vector may be read, never used: a little more than was asked for.
    bytes = round_up(bytes, 64) + 64;
    memory->data = (char*)aligned_alloc(64, (size_t)bytes);
    memory->bytes = memory->data ? bytes : 0;
    return memory->data;
}

bool is_whole(const Matrix* matrix) { return matrix->format >= INT8; }

}  // namespace

struct Engine {
    const Kernels* kernels;
    Pool* pool;
    int32_t threads;
    const Op* ops;
    int64_t count;
    const Matrix* matrices;
    bool far;  // of products
    const int64_t* widths;
    int64_t buffers;
    Memory* tables;   // one for each buffer
    Memory rounded;   // the input of a product
    Memory* scratch;  // one for each thread
    Memory mixture;
    Memory rankings;
    // Whose numbers `rounded` holds: columns of a buffer, -1 for nobody's.
    int32_t rounded_buffer, rounded_column;
    int64_t rounded_in;
};

namespace {

// Bytes of weights that the last cache may hold from one step to the next.
constexpr int64_t LAST_CACHE = 16 << 20;

int64_t bytes_of(const Matrix* matrix) { return matrix_bytes(matrix->format, matrix->out, matrix->in); }

// Of the matrices that products read, each once.
int64_t product_bytes(const Op* ops, int64_t count, const Matrix* matrices) {
    int64_t bytes = 0;
    for (const Op* op = ops; op < ops + count; op++) {
        // Its router, and two for each of its experts; nobody else reads them.
        for (int64_t i = 0; op->code == MIX && i <= 2 * op->experts; i++) bytes += bytes_of(&matrices[op->matrix + i]);
        if (op->code != LINEAR) continue;
        const Op* first = ops;
        while (first->code != LINEAR || first->matrix != op->matrix) first++;
        if (first == op) bytes += bytes_of(&matrices[op->matrix]);
    }
    return bytes;
}

int64_t step_of(const Engine* engine, int32_t buffer) { return round_up(engine->widths[buffer], 16); }

float* row_of(const Engine* engine, int32_t buffer, int64_t row, int64_t column) {
    return (float*)engine->tables[buffer].data + row * step_of(engine, buffer) + column;
}

// In how many parts to divide work of so many products, of which there may be at most `most`.
int64_t parts_for(const Engine* engine, int64_t work, int64_t most) {
    if (engine->threads == 1) return 1;
    int64_t parts = work / GRAIN;
    if (parts > 4 * engine->threads) parts = 4 * engine->threads;
    if (parts > most) parts = most;
    return parts < 2 ? 1 : parts;
}

// f(row) for each of `rows`, which cost `work` each.
template <class Function>
void for_rows(const Engine* engine, int64_t rows, int64_t work, Function f) {
    const int64_t parts = parts_for(engine, rows * work, rows);
    spread(engine->pool, parts, [&](int64_t part, int32_t) {
        for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; row++) f(row);
    });
}

void multiply_all(const Engine* engine, const Product* product, int64_t rows) {
    const int64_t panels = panels_of(product->matrix), columns = product->matrix->in;
    const int64_t parts = parts_for(engine, rows * panels * PANEL * columns, rows * panels);
    // Many rows are divided in blocks, and each of them by panels.
    const int64_t row_parts = in_steps(rows, 96);
    const int64_t row_count = round_up(in_steps(rows, row_parts), 12);
    int64_t panel_parts = in_steps(parts, row_parts);
    const int64_t panel_count = parts == 1 ? panels : round_up(in_steps(panels, panel_parts), panels >= 32 * engine->threads ? 8 : 2);
    panel_parts = in_steps(panels, panel_count);
    spread(engine->pool, row_parts * panel_parts, [&](int64_t part, int32_t) {
        const int64_t row = part / panel_parts * row_count, panel = part % panel_parts * panel_count;
        const int64_t end = row + row_count, panel_end = panel + panel_count;
        engine->kernels->product(product, row, end < rows ? end : rows, panel, panel_end < panels ? panel_end : panels);
    });
}

// x [rows, in], rounded where the matrix wants it.
Rounded rounded_input(Engine* engine, int64_t rows, int64_t in, const float* x, int64_t step) {
    const Rounded rounded = rounded_in(engine->rounded.data, rows, in);
    for_rows(engine, rows, 2 * in, [&](int64_t row) { engine->kernels->round(x + row * step, row, &rounded); });
    return rounded;
}

// The product of a LINEAR, or of what is listed of it, its input rounded where the matrix wants it.
Product product_of(Engine* engine, const Op* op, int64_t rows, const Shortlist* listed = NULL) {
    const Matrix* matrix = listed ? listed->matrix : &engine->matrices[op->matrix];
    const float* x = row_of(engine, op->in, 0, op->column);
    Product product = {matrix, x, step_of(engine, op->in), {}, listed ? listed->bias : op->bias, op->activation, op->flags,
                       row_of(engine, op->out, 0, op->out_column), step_of(engine, op->out), engine->far};
    if (is_whole(matrix)) {
        const bool there = engine->rounded_buffer == op->in && engine->rounded_column == op->column &&
                           engine->rounded_in == matrix->in;
        product.rounded = there ? rounded_in(engine->rounded.data, rows, matrix->in)
                                : rounded_input(engine, rows, matrix->in, x, product.x_step);
        engine->rounded_buffer = op->in;
        engine->rounded_column = op->column;
        engine->rounded_in = matrix->in;
    }
    return product;
}

// What a mixture of experts needs beside its buffers, for so many tokens.
struct Mixture {
    float *scores, *chosen_weight, *gathered, *hidden, *gated, *written;
    int32_t *chosen, *tokens;
    float* weights;
};

int64_t divide_mixture(const Op* op, const Matrix* matrices, int64_t rows, char* memory, Mixture* to) {
    const int64_t in = matrices[op->matrix].in, out = matrices[op->matrix + 2].out, active = op->active;
    const int64_t sizes[] = {op->experts, active, in, 2 * op->width, op->width, out, active, 1, 1};
    int64_t used[9], bytes = 0;
    for (int i = 0; i < 9; i++) {
        used[i] = bytes;
        bytes += round_up(4 * rows * sizes[i], 64);
    }
    if (to)
        *to = Mixture{(float*)(memory + used[0]), (float*)(memory + used[1]), (float*)(memory + used[2]),
                      (float*)(memory + used[3]), (float*)(memory + used[4]), (float*)(memory + used[5]),
                      (int32_t*)(memory + used[6]), (int32_t*)(memory + used[7]), (float*)(memory + used[8])};
    return bytes;
}

// The best of the scores' softmax, and their weights. Of equal ones the first. None twice, NaN or not: there is room for
// each token once with an expert.
void choose(const Op* op, float* scores, int32_t* chosen, float* weights) {
    float most = scores[0], total = 0, kept = 0;
    for (int e = 1; e < op->experts; e++) most = scores[e] > most ? scores[e] : most;
    for (int e = 0; e < op->experts; e++) total += scores[e] = expf(scores[e] - most);
    for (int k = 0; k < op->active; k++) {
        int best = 0;
        for (int e = 1; e < op->experts; e++) {
            const bool taken = scores[best] < 0;
            best = (taken ? !(scores[e] < 0) : scores[e] > scores[best]) ? e : best;
        }
        chosen[k] = best;
        kept += weights[k] = scores[best] / total;
        scores[best] = -1;
    }
    for (int k = 0; op->flags & NORMALIZE && k < op->active; k++) weights[k] /= kept;
}

void mix(Engine* engine, const Op* op, int64_t rows) {
    const Kernels* kernels = engine->kernels;
    const Matrix *router = &engine->matrices[op->matrix], *experts = router + 1;
    Mixture m;
    divide_mixture(op, engine->matrices, rows, engine->mixture.data, &m);
    const int64_t in = router->in, out = experts[1].out;
    engine->rounded_buffer = -1;
    const auto multiply_by = [&](const Matrix* matrix, int64_t count, const float* x, int64_t x_step, float* to) {
        Product product = {matrix, x, x_step, {}, NULL, NO_ACTIVATION, 0, to, matrix->out, engine->far};
        if (is_whole(matrix)) product.rounded = rounded_input(engine, count, matrix->in, x, x_step);
        multiply_all(engine, &product, count);
    };
    multiply_by(router, rows, row_of(engine, op->in, 0, op->column), step_of(engine, op->in), m.scores);
    for (int64_t row = 0; row < rows; row++) {
        choose(op, m.scores + row * op->experts, m.chosen + row * op->active, m.chosen_weight + row * op->active);
        memset(row_of(engine, op->out, row, op->out_column), 0, 4 * (size_t)out);
    }
    // Each expert in its turn, so that a token's sum has the same order whatever others are there.
    for (int e = 0; e < op->experts; e++, experts += 2) {
        int64_t count = 0;
        for (int64_t place = 0; place < rows * op->active; place++) {
            if (m.chosen[place] != e) continue;
            m.tokens[count] = (int32_t)(place / op->active);
            m.weights[count] = m.chosen_weight[place];
            memcpy(m.gathered + count * in, row_of(engine, op->in, m.tokens[count], op->column), 4 * (size_t)in);
            count++;
        }
        if (count == 0) continue;
        multiply_by(&experts[0], count, m.gathered, in, m.hidden);
        for_rows(engine, count, 8 * op->width, [&](int64_t i) {
            kernels->gate(op->activation, op->width, m.hidden + i * 2 * op->width, m.gated + i * op->width);
        });
        multiply_by(&experts[1], count, m.gated, op->width, m.written);
        for (int64_t i = 0; i < count; i++)
            kernels->add(m.weights[i], out, m.written + i * out, row_of(engine, op->out, m.tokens[i], op->out_column));
    }
}

// --- attention -----------------------------------------------------------------------------------------------------

// From so many queries of a token's own row and group on, keys are prepared for many. What other rows there are must not
// matter: sums run in another order.
constexpr int64_t MANY = 8;

// How many queries are computed together: their scores should stay in the second cache.
int64_t queries_at_once(int64_t keys) {
    return larger_of(12, smaller_of(MOST_QUERIES, 65536 / larger_of(keys, 1) / 12 * 12));
}

int64_t keys_of(const Op* op, const Call* call) {
    return op->code == CROSS ? call->source_length : op->flags & CACHED ? call->held + call->fresh : call->fresh;
}

float* cache_of(const Op* op, const Call* call, int64_t values, int64_t row, int64_t group) {
    return call->cache + (((op->layer * 2 + values) * call->rows + row) * op->groups + group) * call->capacity * op->head;
}

// Which places a query of a row sees, when it stands at `place`.
void seen(const Op* op, const Call* call, int64_t row, int64_t place, int64_t* first, int64_t* last) {
    const int64_t padding = call->padding ? call->padding[row] : 0;
    *first = padding;
    if (op->flags & CACHED) {
        *last = place + 1;
    } else {
        *last = call->lengths ? call->lengths[row] : call->fresh;
        if (op->window) *last = smaller_of(*last, place + op->window);
    }
    if (op->window) *first = larger_of(*first, place - op->window + 1);
}

// The queries of a key-value head of a row, or of all rows of a source, from one of them on: those of a token side by
// side, then its row's next token, then the next row.
void attend_some(const Engine* engine, const Op* op, const Call* call, int64_t row, int64_t group, int64_t query,
                 int64_t count, float* scratch) {
    const int64_t sharing = op->heads / op->groups, fresh = call->fresh, size = op->head;
    const int64_t source = op->code == CROSS ? row / (call->rows / call->sources) : 0;
    const float* const table = op->code == ATTEND ? op->table : NULL;
    Queries q;
    q.rows = NULL, q.row_step = 0;
    q.head = size, q.scale = op->a, q.cap = op->cap, q.count = count, q.many = fresh * sharing >= MANY;
    int64_t begin = INT64_MAX, end = 0;
    int64_t turn = query % sharing, token = query / sharing % fresh;
    row += query / sharing / fresh;
    for (int64_t i = 0; i < count; i++) {
        const int64_t head = group * sharing + turn, place = call->held + token;
        q.query[i] = row_of(engine, op->in, row * fresh + token, op->column + head * size);
        q.out[i] = row_of(engine, op->out, row * fresh + token, op->out_column + head * size);
        q.bias[i] = table ? table + head * (2 * op->positions - 1) + op->positions - 1 - place : NULL;
        if (op->code == ATTEND) {
            seen(op, call, row, place, &q.first[i], &q.last[i]);
        } else {
            q.first[i] = 0, q.last[i] = call->source_lengths ? call->source_lengths[source] : call->source_length;
        }
        if (q.first[i] < q.last[i]) begin = smaller_of(begin, q.first[i]), end = larger_of(end, q.last[i]);
        if (i + 1 == count || ++turn < sharing) continue;
        turn = 0;
        if (++token == fresh) token = 0, row++;
    }
    // Sums go over 16 keys together; where these begin is the row's own, whatever queries are beside it.
    const int64_t padding = op->code == ATTEND && call->padding ? call->padding[row] : 0;
    begin = end == 0 ? 0 : padding + (begin - padding) / 16 * 16;
    q.keys = end - begin;
    for (int64_t i = 0; i < count; i++) {
        q.first[i] -= begin, q.last[i] -= begin;
        if (q.bias[i]) q.bias[i] += begin;
    }
    if (op->code == CROSS) {
        const int64_t at = (source * op->groups + group) * call->source_length * size;
        q.key = call->memory[2 * op->layer] + at, q.value = call->memory[2 * op->layer + 1] + at, q.step = size;
    } else if (op->flags & CACHED) {
        const int64_t from = call->cache_rows ? 0 : row;
        q.key = cache_of(op, call, 0, from, group), q.value = cache_of(op, call, 1, from, group), q.step = size;
        if (call->cache_rows) q.rows = call->cache_rows + row * call->capacity + begin;
        q.row_step = op->groups * call->capacity * size;
    } else {
        q.key = row_of(engine, op->in, row * fresh, op->column + (op->heads + group) * size);
        q.value = q.key + op->groups * size, q.step = step_of(engine, op->in);
    }
    q.key += begin * q.step, q.value += begin * q.step;
    engine->kernels->attend(&q, scratch);
}

void attend(const Engine* engine, const Op* op, const Call* call) {
    const int64_t fresh = call->fresh, keys = keys_of(op, call), size = op->head;
    if (op->code == ATTEND && op->flags & CACHED)
        for_rows(engine, call->rows * op->groups, 4 * fresh * size, [&](int64_t unit) {
            const int64_t row = unit / op->groups, group = unit % op->groups;
            for (int64_t values = 0; values < 2; values++) {
                float* const to = cache_of(op, call, values, row, group) + call->held * size;
                const int64_t column = op->column + (op->heads + values * op->groups + group) * size;
                for (int64_t i = 0; i < fresh; i++)
                    memcpy(to + i * size, row_of(engine, op->in, row * fresh + i, column), 4 * (size_t)size);
            }
        });
    // A unit is what shares keys: a key-value head of a row, or of the rows of a source; a piece is some of its queries.
    const int64_t rows_of_unit = op->code == CROSS ? call->rows / call->sources : 1;
    const int64_t queries = rows_of_unit * fresh * (op->heads / op->groups), most = queries_at_once(keys);
    const int64_t pieces = in_steps(queries, most), units = call->rows / rows_of_unit * op->groups;
    const int64_t parts = parts_for(engine, units * queries * keys * size * 4, units * pieces);
    spread(engine->pool, parts, [&](int64_t part, int32_t thread) {
        for (int64_t i = units * pieces * part / parts; i < units * pieces * (part + 1) / parts; i++) {
            const int64_t unit = i / pieces, query = i % pieces * most;
            attend_some(engine, op, call, unit / op->groups * rows_of_unit, unit % op->groups, query,
                        smaller_of(queries - query, most), (float*)engine->scratch[thread].data);
        }
    });
}

void keep(const Engine* engine, const Op* op, const Call* call) {
    const int64_t size = op->head;
    for_rows(engine, call->rows * call->fresh, 8 * op->groups * size, [&](int64_t token) {
        const int64_t row = token / call->fresh, place = token % call->fresh;
        for (int64_t part = 0; part < 2 * op->groups; part++) {
            const int64_t values = part / op->groups, group = part % op->groups;
            float* const to = call->memory[2 * op->layer + values] + ((row * op->groups + group) * call->fresh + place) * size;
            memcpy(to, row_of(engine, op->in, token, op->column + part * size), 4 * (size_t)size);
        }
    });
}

// --- the program ---------------------------------------------------------------------------------------------------

int64_t position_of(const Call* call, int64_t token) {
    const int64_t row = token / call->fresh, place = call->held + token % call->fresh;
    return larger_of(0, place - (call->padding ? call->padding[row] : 0));
}

void embed(const Engine* engine, const Op* op, const Call* call, int64_t token) {
    const Matrix* matrix = &engine->matrices[op->matrix];
    float* const out = row_of(engine, op->out, token, op->out_column);
    matrix_row(matrix, call->tokens[token], out);
    if (op->a != 1) engine->kernels->scale(op->a, matrix->in, out, out);
    if (op->table) engine->kernels->add(1, matrix->in, op->table + position_of(call, token) * matrix->in, out);
}

void run(Engine* engine, const Op* op, const Call* call) {
    const Kernels* kernels = engine->kernels;
    const int64_t rows = call->rows * call->fresh;
    const auto in = [&](int64_t row) { return row_of(engine, op->in, row, op->column); };
    const auto out = [&](int64_t row) { return row_of(engine, op->out, row, op->out_column); };
    switch (op->code) {
        case EMBED:
            for_rows(engine, rows, 8 * engine->matrices[op->matrix].in, [&](int64_t row) { embed(engine, op, call, row); });
            break;
        case NORM: for_rows(engine, rows, 4 * op->width, [&](int64_t row) { kernels->norm(op, in(row), out(row)); }); break;
        case LINEAR: {
            const Product product = product_of(engine, op, rows);
            multiply_all(engine, &product, rows);
            break;
        }
        case ROTATE:
            for_rows(engine, rows, 4 * op->heads * op->width,
                     [&](int64_t row) { kernels->rotate(op, in(row), position_of(call, row)); });
            break;
        case ATTEND:
        case CROSS: attend(engine, op, call); break;
        case GATE:
            for_rows(engine, rows, 16 * op->width,
                     [&](int64_t row) { kernels->gate(op->activation, op->width, in(row), out(row)); });
            break;
        case ADD: for_rows(engine, rows, op->width, [&](int64_t row) { kernels->add(1, op->width, in(row), out(row)); }); break;
        case SCALE:
            for_rows(engine, rows, op->width, [&](int64_t row) { kernels->scale(op->a, op->width, in(row), out(row)); });
            break;
        case CAP:
            for_rows(engine, rows, 8 * op->width, [&](int64_t row) { kernels->cap(op->a, op->width, in(row), out(row)); });
            break;
        case MIX: mix(engine, op, rows); break;
        case STORE: keep(engine, op, call); break;
    }
    // What was rounded of a buffer is out of date once somebody writes to it.
    const int32_t written = op->code == ROTATE ? op->in : op->code == STORE ? -1 : op->out;
    if (written == engine->rounded_buffer) engine->rounded_buffer = -1;
}

// --- what is most probable ------------------------------------------------------------------------------------------

constexpr int64_t RANKED_ROWS = 96;

// Whether the last product is ranked by those who compute it, so that it is never written to memory as a whole: where
// there are rows enough for all threads.
bool ranks_its_product(const Engine* engine, const Call* call) {
    if (!call->best || call->out || call->count == 0) return false;
    const Op* last = &engine->ops[call->count - 1];
    return last->code == LINEAR && last->out == call->result && last->out_column == 0 && !(last->flags & ACCUMULATE) &&
           engine->matrices[last->matrix].out == engine->widths[call->result] &&
           (call->shortlist || engine->threads == 1 || call->rows * call->fresh >= 8 * engine->threads);
}

// How many columns of the last product are computed before they are ranked: of a shortlist all.
int64_t columns_at_once(const Call* call) { return call->shortlist ? round_up(call->shortlist->matrix->out, PANEL) : RANKED; }

// Those that the row may choose among take the places of the others.
int64_t choose_among(const Shortlist* listed, int64_t source, float* numbers) {
    const int32_t* const choices = listed->choices + source * listed->most;
    for (int64_t i = 0; i < listed->counts[source]; i++) numbers[i] = numbers[choices[i]];
    return listed->counts[source];
}

void project_and_rank(Engine* engine, const Op* op, const Call* call, Ranking* rankings) {
    const Shortlist* const listed = call->shortlist;
    const int64_t rows = call->rows * call->fresh, rows_of_source = listed ? rows / call->sources : 0;
    const Product product = product_of(engine, op, rows, listed);
    const int64_t columns = product.matrix->out, panels = panels_of(product.matrix), step = columns_at_once(call);
    const int64_t parts = larger_of(in_steps(rows, RANKED_ROWS), engine->threads);
    const int64_t row_count = round_up(in_steps(rows, parts), 4);
    spread(engine->pool, in_steps(rows, row_count), [&](int64_t part, int32_t thread) {
        const int64_t row = part * row_count, end = smaller_of(row + row_count, rows);
        float* const found = (float*)engine->scratch[thread].data;
        for (int64_t column = 0; column < columns; column += step) {
            Product some = product;
            some.out = found - row * step - column, some.out_step = step;
            const int64_t panel = column / PANEL;
            engine->kernels->product(&some, row, end, panel, smaller_of(panel + step / PANEL, panels));
            for (int64_t r = row; r < end; r++) {
                float* const numbers = found + (r - row) * step;
                const int64_t width = listed ? choose_among(listed, r / rows_of_source, numbers)
                                             : smaller_of(step, columns - column);
                for (int64_t i = 0; i < width; i += RANKED)
                    engine->kernels->rank(column + i, smaller_of(RANKED, width - i), numbers + i, &rankings[r]);
            }
        }
    });
    for (int64_t row = 0; listed && row < rows; row++)
        for (int64_t place = 0; place < rankings[row].found; place++)
            rankings[row].columns[place] =
                listed->choices[row / rows_of_source * listed->most + rankings[row].columns[place]];
}

// Runs the last operation, too, where `ranks_its_product`.
void find_best(Engine* engine, const Call* call) {
    const int64_t rows = call->rows * call->fresh, width = engine->widths[call->result], count = call->best;
    Ranking* const rankings = (Ranking*)engine->rankings.data;
    for (int64_t row = 0; row < rows; row++)
        rankings[row] = Ranking{count, 0, call->best_columns + row * count, call->best_logs + row * count, -INFINITY, 0};
    if (ranks_its_product(engine, call))
        project_and_rank(engine, &engine->ops[call->count - 1], call, rankings);
    else
        for_rows(engine, rows, 8 * width, [&](int64_t row) {
            for (int64_t column = 0; column < width; column += RANKED)
                engine->kernels->rank(column, smaller_of(RANKED, width - column), row_of(engine, call->result, row, column),
                                      &rankings[row]);
        });
    for (int64_t row = 0; row < rows; row++) {
        Ranking* const r = &rankings[row];
        // Their log softmax in two steps: the largest plus the logarithm would lose digits of the logarithm.
        const float log_total = logf(r->total);
        for (int64_t place = 0; place < r->found; place++) r->numbers[place] = r->numbers[place] - r->largest - log_total;
        for (int64_t place = r->found; place < count; place++) r->numbers[place] = -INFINITY, r->columns[place] = 0;
    }
}

// All the memory that the call needs.
bool prepare(Engine* engine, const Call* call) {
    const int64_t rows = call->rows * call->fresh;
    const bool ranked = ranks_its_product(engine, call);
    if (call->best && !grow(&engine->rankings, rows * (int64_t)sizeof(Ranking))) return false;
    for (int32_t thread = 0; ranked && thread < engine->threads; thread++)
        if (!grow(&engine->scratch[thread], 4 * columns_at_once(call) * smaller_of(round_up(rows, 4), RANKED_ROWS))) return false;
    for (int64_t i = 0; i < call->count; i++) {
        const Op* op = &engine->ops[i];
        const bool written = !ranked || i + 1 < call->count;
        if (!grow(&engine->tables[op->in], 4 * rows * step_of(engine, op->in)) ||
            (written && !grow(&engine->tables[op->out], 4 * rows * step_of(engine, op->out))))
            return false;
        const Matrix* matrix = &engine->matrices[op->matrix];
        if (op->code == LINEAR && is_whole(matrix) && !grow(&engine->rounded, rounded_bytes(rows, matrix->in))) return false;
        if (op->code == MIX &&
            (!grow(&engine->mixture, divide_mixture(op, engine->matrices, rows, NULL, NULL)) ||
             !grow(&engine->rounded, rounded_bytes(rows, larger_of(matrix->in, op->width)))))
            return false;
        if (op->code != ATTEND && op->code != CROSS) continue;
        const int64_t keys = keys_of(op, call);
        for (int32_t thread = 0; thread < engine->threads; thread++)
            if (!grow(&engine->scratch[thread], 4 * attend_scratch(queries_at_once(keys), keys, op->head))) return false;
    }
    return true;
}

}  // namespace

int64_t attend_scratch(int64_t queries, int64_t keys, int64_t head) {
    const int64_t padded = round_up(keys, PANEL), padded_head = round_up(head, PANEL);
    return queries * (2 * padded_head + padded) + padded_head * larger_of(PANEL, keys);
}

int64_t interface_bytes(void) {
    return (int64_t)sizeof(Op) << 32 | (int64_t)sizeof(Call) << 16 | (int64_t)sizeof(Matrix);
}

Engine* engine_new(const char* isa, const Op* ops, int64_t count, const Matrix* matrices, const int64_t* widths,
                   int64_t buffers, int32_t threads) {
    const Kernels* kernels = kernels_named(isa);
    Engine* engine = (Engine*)calloc(1, sizeof(Engine));
    if (!kernels || !engine) {
        free(engine);
        return NULL;
    }
    threads = threads < 1 ? 1 : threads;
    engine->kernels = kernels;
    engine->threads = threads;
    engine->ops = ops, engine->count = count, engine->matrices = matrices;
    engine->widths = widths, engine->buffers = buffers;
    engine->far = product_bytes(ops, count, matrices) > LAST_CACHE;
    engine->pool = pool_new(threads);
    engine->tables = (Memory*)calloc((size_t)larger_of(buffers, 1), sizeof(Memory));
    engine->scratch = (Memory*)calloc((size_t)threads, sizeof(Memory));
    if (engine->pool && engine->tables && engine->scratch) return engine;
    engine_free(engine);
    return NULL;
}

void engine_free(Engine* engine) {
    if (!engine) return;
    pool_free(engine->pool);
    for (int64_t buffer = 0; engine->tables && buffer < engine->buffers; buffer++) free(engine->tables[buffer].data);
    for (int32_t thread = 0; engine->scratch && thread < engine->threads; thread++) free(engine->scratch[thread].data);
    free(engine->tables);
    free(engine->scratch);
    free(engine->rounded.data);
    free(engine->mixture.data);
    free(engine->rankings.data);
    free(engine);
}

int32_t engine_run(Engine* engine, const Call* call) {
    for (int64_t i = 0; i < call->count; i++)
        for (int64_t token = 0; engine->ops[i].code == EMBED && token < call->rows * call->fresh; token++)
            if (call->tokens[token] < 0 || call->tokens[token] >= engine->matrices[engine->ops[i].matrix].out) return -2;
    if (call->shortlist && !ranks_its_product(engine, call)) return -3;
    pool_follow_fork(engine->pool);
    if (!prepare(engine, call)) return -1;
    engine->rounded_buffer = -1;
    const int64_t count = call->count - (ranks_its_product(engine, call) ? 1 : 0);
    for (int64_t i = 0; i < count; i++) run(engine, &engine->ops[i], call);
    const int64_t width = call->out ? engine->widths[call->result] : 0;
    for (int64_t row = 0; call->out && row < call->rows * call->fresh; row++)
        memcpy(call->out + row * width, row_of(engine, call->result, row, 0), 4 * (size_t)width);
    if (call->best) find_best(engine, call);
    return 0;
}

void round_input(int64_t rows, int64_t in, const float* x, float* rounded) {
    Memory memory = {NULL, 0};
    if (!grow(&memory, rounded_bytes(1, in))) return;
    const Rounded row = rounded_in(memory.data, 1, in);
    for (int64_t r = 0; r < rows; r++) {
        kernels_plain.round(x + r * in, 0, &row);
        for (int64_t k = 0; k < in; k++)
            rounded[r * in + k] = row.groups[k / GROUP].scale[0] * (float)row.numbers[k / GROUP * 4 * GROUP + k % GROUP];
    }
    free(memory.data);
}

int32_t multiply(const char* isa, const Matrix* matrix, int64_t rows, const float* x, float* y, int32_t threads) {
    Op op = {};
    op.code = LINEAR, op.in = 0, op.out = 1, op.width = (int32_t)matrix->in;
    const int64_t widths[2] = {matrix->in, matrix->out};
    Engine* const engine = engine_new(isa, &op, 1, matrix, widths, 2, threads);
    Call call = {};
    call.rows = rows, call.fresh = 1, call.count = 1, call.result = 1, call.out = y;
    if (!engine || !prepare(engine, &call)) {
        engine_free(engine);
        return -1;
    }
    for (int64_t row = 0; row < rows; row++) memcpy(row_of(engine, 0, row, 0), x + row * matrix->in, 4 * (size_t)matrix->in);
    engine_run(engine, &call);
    engine_free(engine);
    return 0;
}
