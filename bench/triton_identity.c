/* Triton's frontends and core alone: a backend that answers each request with its own input.
 *
 *     cc -O2 -shared -fPIC -o libtriton_identity.so triton_identity.c
 *
 * The wheel that has Triton has no headers, so what is used of its backend interface is declared here, after
 * https://github.com/triton-inference-server/core/blob/main/include/triton/core/tritonbackend.h. The functions are
 * tritonserver's own and found when it opens this library. */
#include <stdint.h>
#include <string.h>
#include <time.h>

typedef struct Error Error; /* null: it went well */
typedef struct Instance Instance;
typedef struct Request Request;
typedef struct Response Response;
typedef struct Input Input;
typedef struct Output Output;

Error *TRITONBACKEND_RequestInputByIndex(Request *, uint32_t index, Input **);
Error *TRITONBACKEND_InputProperties(Input *, const char **name, int *datatype, const int64_t **shape,
                                     uint32_t *dimensions, uint64_t *bytes, uint32_t *buffers);
Error *TRITONBACKEND_InputBuffer(Input *, uint32_t index, const void **, uint64_t *bytes, int *memory, int64_t *device);
Error *TRITONBACKEND_ResponseNew(Response **, Request *);
Error *TRITONBACKEND_ResponseOutput(Response *, Output **, const char *name, int datatype, const int64_t *shape,
                                    uint32_t dimensions);
Error *TRITONBACKEND_OutputBuffer(Output *, void **, uint64_t bytes, int *memory, int64_t *device);
Error *TRITONBACKEND_ResponseSend(Response *, uint32_t flags, Error *);
Error *TRITONBACKEND_RequestRelease(Request *, uint32_t flags);
Error *TRITONBACKEND_ModelInstanceReportStatistics(Instance *, Request *, _Bool success, uint64_t begin,
                                                   uint64_t compute_begin, uint64_t compute_end, uint64_t end);

enum { RESPONSE_COMPLETE_FINAL = 1, REQUEST_RELEASE_ALL = 1 };

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static Error *echo(Request *request, Response *response) {
    Input *input;
    Output *output;
    const char *name;
    const int64_t *shape;
    const void *from;
    void *to;
    uint64_t bytes, part, done = 0;
    uint32_t dimensions, buffers;
    int datatype, memory = 0; /* the processor's */
    int64_t device = 0;
    Error *error = TRITONBACKEND_RequestInputByIndex(request, 0, &input);
    if (error || (error = TRITONBACKEND_InputProperties(input, &name, &datatype, &shape, &dimensions, &bytes, &buffers)) ||
        (error = TRITONBACKEND_ResponseOutput(response, &output, "OUTPUT0", datatype, shape, dimensions)) ||
        (error = TRITONBACKEND_OutputBuffer(output, &to, bytes, &memory, &device)))
        return error;
    for (uint32_t index = 0; index < buffers; index++) {
        if ((error = TRITONBACKEND_InputBuffer(input, index, &from, &part, &memory, &device)))
            return error;
        memcpy((char *)to + done, from, part);
        done += part;
    }
    return 0;
}

Error *TRITONBACKEND_ModelInstanceExecute(Instance *instance, Request **requests, uint32_t count) {
    for (uint32_t index = 0; index < count; index++) {
        Response *response;
        uint64_t begin = nanoseconds();
        Error *error = TRITONBACKEND_ResponseNew(&response, requests[index]);
        if (error)
            return error;
        error = echo(requests[index], response);
        uint64_t end = nanoseconds();
        _Bool success = !error;
        TRITONBACKEND_ResponseSend(response, RESPONSE_COMPLETE_FINAL, error);
        TRITONBACKEND_ModelInstanceReportStatistics(instance, requests[index], success, begin, begin, end, end);
        TRITONBACKEND_RequestRelease(requests[index], REQUEST_RELEASE_ALL);
    }
    return 0;
}
