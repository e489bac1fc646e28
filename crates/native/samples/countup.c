/* Counts up to INT32 `INPUT`, one step a run: `n` is kept by the server from run to run, as `state` of config.pbtxt says,
 * and RESCHEDULE asks for the next run.  cc -shared -fPIC -O2 -I../include -o model.so countup.c */
#include "kapok_node.h"

#include <stdlib.h>
#include <string.h>

typedef struct { int32_t *next; uint8_t *again; uint64_t shape[2]; } lane;

static int32_t say(kapok_error *error, int32_t code, const char *text) {
  if (error->capacity > 0) {
    strncpy(error->text, text, error->capacity);
    error->text[error->capacity - 1] = 0;
  }
  return code;
}

static int32_t open(const kapok_parameter *parameters, uint64_t count, void **made, kapok_error *error) {
  (void)parameters; (void)count; (void)error;
  static int nothing;
  *made = &nothing;
  return KAPOK_OK;
}

static const int64_t rows[2] = {-1, 1};
static const kapok_port inputs[] = {{{"INPUT", 5}, KAPOK_INT32, 2, rows}, {{"n", 1}, KAPOK_INT32, 2, rows}};
static const kapok_port outputs[] = {{{"OUTPUT", 6}, KAPOK_INT32, 2, rows},
                                     {{"next", 4}, KAPOK_INT32, 2, rows},
                                     {{"RESCHEDULE", 10}, KAPOK_BOOL, 2, rows}};

static int32_t ports(void *self, kapok_ports *ports, kapok_error *error) {
  (void)self; (void)error;
  *ports = (kapok_ports){inputs, 2, outputs, 3};
  return KAPOK_OK;
}

static int32_t make_lane(void *self, void **made, kapok_error *error) {
  (void)self;
  *made = calloc(1, sizeof(lane));
  return *made ? KAPOK_OK : say(error, KAPOK_FAILED, "out of memory");
}

static int32_t run(void *handle, const kapok_tensor *in, kapok_tensor *out, const volatile uint8_t *stop,
                   kapok_error *error) {
  (void)stop;
  lane *self = handle;
  const int32_t *target = in[0].data, *n = in[1].data;
  uint64_t count = in[0].bytes / sizeof *target;
  if (in[1].bytes != in[0].bytes) return say(error, KAPOK_INVALID, "INPUT and n differ in their rows");
  /* One for OUTPUT and one for `next`: outputs must not overlap. */
  self->next = malloc(2 * in[0].bytes + 1);
  self->again = malloc(count + 1);
  if (!self->next || !self->again) return say(error, KAPOK_FAILED, "out of memory");
  for (uint64_t i = 0; i < count; i++) {
    self->next[i] = self->next[count + i] = n[i] + 1;
    self->again[i] = self->next[i] < target[i];
  }
  self->shape[0] = count;
  self->shape[1] = 1;
  out[0] = (kapok_tensor){KAPOK_INT32, 2, self->shape, self->next, in[0].bytes};
  out[1] = (kapok_tensor){KAPOK_INT32, 2, self->shape, self->next + count, in[0].bytes};
  out[2] = (kapok_tensor){KAPOK_BOOL, 2, self->shape, self->again, count};
  return KAPOK_OK;
}

static void release(void *handle) {
  lane *self = handle;
  free(self->next);
  free(self->again);
  self->next = NULL;
  self->again = NULL;
}

static void close_lane(void *handle) { free(handle); }
static void close_node(void *handle) { (void)handle; }

static const kapok_node_api api = {KAPOK_NODE_ABI, sizeof(kapok_node_api), open, ports, make_lane, run, release,
                                   close_lane, close_node};

const kapok_node_api *kapok_node(void) { return &api; }
