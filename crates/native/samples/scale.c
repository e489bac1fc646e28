/* Multiplies FP32 `x` by the parameter `factor`.  cc -shared -fPIC -O2 -I../include -o model.so scale.c */
#include "kapok_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { float factor; } node;
typedef struct { const node *of; float *out; uint64_t shape[16]; } lane;

static int32_t say(kapok_error *error, int32_t code, const char *text) {
  if (error->capacity > 0) {
    strncpy(error->text, text, error->capacity);
    error->text[error->capacity - 1] = 0;
  }
  return code;
}

static int32_t open(const kapok_parameter *parameters, uint64_t count, void **made, kapok_error *error) {
  node *self = malloc(sizeof *self);
  if (!self) return say(error, KAPOK_FAILED, "out of memory");
  self->factor = 1.0f;
  for (uint64_t i = 0; i < count; i++) {
    char number[32] = {0};
    const kapok_parameter *p = &parameters[i];
    if (p->key.length != 6 || memcmp(p->key.data, "factor", 6) != 0) continue;
    if (p->value.length >= sizeof number) { free(self); return say(error, KAPOK_FAILED, "factor is too long"); }
    memcpy(number, p->value.data, p->value.length);
    char *end;
    self->factor = strtof(number, &end);
    if (end == number) { free(self); return say(error, KAPOK_FAILED, "factor is not a number"); }
  }
  *made = self;
  return KAPOK_OK;
}

static const int64_t any[1] = {-1};
static const kapok_port input = {{"x", 1}, KAPOK_FP32, 1, any};
static const kapok_port output = {{"y", 1}, KAPOK_FP32, 1, any};

static int32_t ports(void *self, kapok_ports *ports, kapok_error *error) {
  (void)self; (void)error;
  ports->inputs = &input; ports->input_count = 1;
  ports->outputs = &output; ports->output_count = 1;
  return KAPOK_OK;
}

static int32_t make_lane(void *self, void **made, kapok_error *error) {
  lane *new_lane = calloc(1, sizeof *new_lane);
  if (!new_lane) return say(error, KAPOK_FAILED, "out of memory");
  new_lane->of = self;
  *made = new_lane;
  return KAPOK_OK;
}

static int32_t run(void *handle, const kapok_tensor *in, kapok_tensor *out, const volatile uint8_t *stop,
                   kapok_error *error) {
  lane *self = handle;
  uint64_t count = in[0].bytes / sizeof(float);
  const float *x = in[0].data;
  self->out = malloc(count ? in[0].bytes : 1);
  if (!self->out) return say(error, KAPOK_FAILED, "out of memory");
  for (uint64_t i = 0; i < count; i++) {
    if (i % 4096 == 0 && *stop) return KAPOK_STOPPED;
    self->out[i] = x[i] * self->of->factor;
  }
  self->shape[0] = count;
  out[0] = (kapok_tensor){KAPOK_FP32, 1, self->shape, self->out, in[0].bytes};
  return KAPOK_OK;
}

static void release(void *handle) {
  lane *self = handle;
  free(self->out);
  self->out = NULL;
}

static void close_lane(void *handle) { free(handle); }
static void close_node(void *handle) { free(handle); }

static const kapok_node_api api = {KAPOK_NODE_ABI, sizeof(kapok_node_api), open, ports, make_lane, run, release,
                                   close_lane, close_node};

const kapok_node_api *kapok_node(void) { return &api; }
