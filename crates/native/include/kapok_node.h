/* kapok's node interface, version 1: a model in a shared library.
 *
 * A library exports one function, `kapok_node`, which returns a table that lives as long as the library is loaded.
 * kapok calls the table like this:
 *
 *     open ─► ports ─► lane ─► run, release ─► run, release … ─► close_lane ─► close
 *               once      one per call that may run at the same time
 *
 * Ownership and lifetime
 *   what                                  made by   valid until                            freed by
 *   parameters, inputs, `stop`, error     kapok     the call returns                       kapok
 *   node (open), lane (lane)              library   close, close_lane                      library
 *   ports, names and shapes in them       library   close                                  library
 *   outputs' data and shapes (run)        library   release of the same lane               library
 * kapok copies what it keeps before it calls `release`. Inputs are read-only, and aligned for their type. An output may
 * point into an input. Two outputs must not overlap each other.
 *
 * Threads
 *   `open`, `ports` and `close` are called by one thread at a time. Different lanes of one node run at the same time; one
 *   lane is used by one thread at a time, not always the same one. Nothing may be thrown or unwound into kapok.
 *
 * Iterative sequences
 *   With `sequence_batching { iterative_sequence: true }` in config.pbtxt, a BOOL output of the name RESCHEDULE says of each
 *   row whether its request is to be run again. What a request needs from run to run is kept by the server, as `state` says,
 *   or by the lane: a request stays on its lane, and the control inputs START and CORRID tell which one it is.
 *
 * Checks
 *   kapok checks every pointer and length that it is given: null, alignment, wrap-around, size against type and shape,
 *   overlap. It cannot check that memory is mapped: a library that lies about that ends its process, which is why
 *   `isolation = "process"` exists.
 */
#ifndef KAPOK_NODE_H
#define KAPOK_NODE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KAPOK_NODE_ABI 1u

/* Element types, as numbered in Triton's model_config.proto. */
enum {
  KAPOK_BOOL = 1, KAPOK_UINT8, KAPOK_UINT16, KAPOK_UINT32, KAPOK_UINT64, KAPOK_INT8, KAPOK_INT16, KAPOK_INT32,
  KAPOK_INT64, KAPOK_FP16, KAPOK_FP32, KAPOK_FP64,
  KAPOK_BYTES, /* each element: length as little-endian uint32, then that many bytes */
  KAPOK_BF16
};

/* What a function returns. */
enum {
  KAPOK_OK = 0,
  KAPOK_INVALID = 1, /* the caller's inputs are wrong; the caller is told the error text */
  KAPOK_FAILED = 2,
  KAPOK_STOPPED = 3  /* `run` ended early because `*stop` became non-zero */
};

/* UTF-8, not terminated. */
typedef struct { const char *data; uint64_t length; } kapok_text;

typedef struct { kapok_text key, value; } kapok_parameter;

/* Room for a message: write at most `capacity` bytes of UTF-8; a zero byte ends it early. */
typedef struct { char *text; uint64_t capacity; } kapok_error;

/* An input or an output. A dimension of -1 is decided by the request. */
typedef struct {
  kapok_text name;
  uint32_t dtype;
  uint32_t rank;        /* at most 16 */
  const int64_t *shape; /* `rank` dimensions; may be null when rank is 0 */
} kapok_port;

typedef struct {
  const kapok_port *inputs;
  uint64_t input_count;  /* 1 to 1024 */
  const kapok_port *outputs;
  uint64_t output_count; /* 1 to 1024 */
} kapok_ports;

/* Row-major, little-endian. */
typedef struct {
  uint32_t dtype;
  uint32_t rank;
  const uint64_t *shape;
  const void *data; /* aligned for dtype; may be null when bytes is 0 */
  uint64_t bytes;
} kapok_tensor;

typedef struct {
  uint32_t abi;  /* KAPOK_NODE_ABI */
  uint32_t size; /* sizeof(kapok_node_api) */
  /* `parameters` of config.pbtxt. On success `*node` is not null. */
  int32_t (*open)(const kapok_parameter *parameters, uint64_t count, void **node, kapok_error *error);
  int32_t (*ports)(void *node, kapok_ports *ports, kapok_error *error);
  /* On success `*lane` is not null. */
  int32_t (*lane)(void *node, void **lane, kapok_error *error);
  /* Inputs are in the order of the ports and fit them. Fill in all outputs, in the order of the ports. `*stop` becomes
     non-zero when nobody waits for the answer any more: looking at it now and then is welcome, and not required. */
  int32_t (*run)(void *lane, const kapok_tensor *inputs, kapok_tensor *outputs, const volatile uint8_t *stop,
                 kapok_error *error);
  /* Called after every `run`, whatever it returned. */
  void (*release)(void *lane);
  void (*close_lane)(void *lane);
  void (*close)(void *node);
} kapok_node_api;

const kapok_node_api *kapok_node(void);

#ifdef __cplusplus
}
#endif
#endif
