// What llama.cpp calls of cuBLAS, so that a build needs neither NVIDIA's headers nor its library of hundreds of megabytes:
// names and numbers as its public documentation has them. cublas.cpp hands calls on to the device's own library.
#pragma once

#include <cuda_runtime.h>
#include <library_types.h>

typedef struct cublasContext * cublasHandle_t;

enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_ARCH_MISMATCH = 8,
    CUBLAS_STATUS_MAPPING_ERROR = 11,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_INTERNAL_ERROR = 14,
    CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum cublasFillMode_t { CUBLAS_FILL_MODE_LOWER = 0, CUBLAS_FILL_MODE_UPPER = 1 };
enum cublasDiagType_t { CUBLAS_DIAG_NON_UNIT = 0, CUBLAS_DIAG_UNIT = 1 };
enum cublasSideMode_t { CUBLAS_SIDE_LEFT = 0, CUBLAS_SIDE_RIGHT = 1 };
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_TENSOR_OP_MATH = 1, CUBLAS_TF32_TENSOR_OP_MATH = 3 };
enum cublasComputeType_t { CUBLAS_COMPUTE_16F = 64, CUBLAS_COMPUTE_32F = 68 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1, CUBLAS_GEMM_DEFAULT_TENSOR_OP = 99 };

// Each function: our name, the library's, parameters, arguments.
#define MELT_CUBLAS(X)                                                                                                          \
    X(cublasCreate, "cublasCreate_v2", (cublasHandle_t * handle), (handle))                                                     \
    X(cublasDestroy, "cublasDestroy_v2", (cublasHandle_t handle), (handle))                                                     \
    X(cublasSetStream, "cublasSetStream_v2", (cublasHandle_t handle, cudaStream_t stream), (handle, stream))                    \
    X(cublasSetMathMode, "cublasSetMathMode", (cublasHandle_t handle, cublasMath_t mode), (handle, mode))                       \
    X(cublasSetWorkspace, "cublasSetWorkspace_v2", (cublasHandle_t handle, void * space, size_t size), (handle, space, size))   \
    X(cublasSgemm, "cublasSgemm_v2",                                                                                            \
      (cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k, const float * alpha,           \
       const float * a, int lda, const float * b, int ldb, const float * beta, float * c, int ldc),                             \
      (handle, opa, opb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc))                                                         \
    X(cublasSgemmBatched, "cublasSgemmBatched",                                                                                 \
      (cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k, const float * alpha,           \
       const float * const a[], int lda, const float * const b[], int ldb, const float * beta, float * const c[], int ldc,      \
       int count),                                                                                                              \
      (handle, opa, opb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count))                                                  \
    X(cublasSgemmStridedBatched, "cublasSgemmStridedBatched",                                                                   \
      (cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k, const float * alpha,           \
       const float * a, int lda, long long stridea, const float * b, int ldb, long long strideb, const float * beta, float * c, \
       int ldc, long long stridec, int count),                                                                                  \
      (handle, opa, opb, m, n, k, alpha, a, lda, stridea, b, ldb, strideb, beta, c, ldc, stridec, count))                       \
    X(cublasStrsmBatched, "cublasStrsmBatched",                                                                                 \
      (cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill, cublasOperation_t op, cublasDiagType_t diagonal,    \
       int m, int n, const float * alpha, const float * const a[], int lda, float * const b[], int ldb, int count),             \
      (handle, side, fill, op, diagonal, m, n, alpha, a, lda, b, ldb, count))                                                   \
    X(cublasGemmEx, "cublasGemmEx",                                                                                             \
      (cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k, const void * alpha,            \
       const void * a, cudaDataType typea, int lda, const void * b, cudaDataType typeb, int ldb, const void * beta, void * c,   \
       cudaDataType typec, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t algorithm),                                   \
      (handle, opa, opb, m, n, k, alpha, a, typea, lda, b, typeb, ldb, beta, c, typec, ldc, compute, algorithm))                \
    X(cublasGemmBatchedEx, "cublasGemmBatchedEx",                                                                               \
      (cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k, const void * alpha,            \
       const void * const a[], cudaDataType typea, int lda, const void * const b[], cudaDataType typeb, int ldb,                \
       const void * beta, void * const c[], cudaDataType typec, int ldc, int count, cublasComputeType_t compute,                \
       cublasGemmAlgo_t algorithm),                                                                                             \
      (handle, opa, opb, m, n, k, alpha, a, typea, lda, b, typeb, ldb, beta, c, typec, ldc, count, compute, algorithm))         \
    X(cublasGemmStridedBatchedEx, "cublasGemmStridedBatchedEx",                                                                 \
      (cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k, const void * alpha,            \
       const void * a, cudaDataType typea, int lda, long long stridea, const void * b, cudaDataType typeb, int ldb,             \
       long long strideb, const void * beta, void * c, cudaDataType typec, int ldc, long long stridec, int count,               \
       cublasComputeType_t compute, cublasGemmAlgo_t algorithm),                                                                \
      (handle, opa, opb, m, n, k, alpha, a, typea, lda, stridea, b, typeb, ldb, strideb, beta, c, typec, ldc, stridec, count,   \
       compute, algorithm))

extern "C" {
#define MELT_DECLARE(name, symbol, parameters, arguments) cublasStatus_t melt_##name parameters;
MELT_CUBLAS(MELT_DECLARE)
#undef MELT_DECLARE
const char * melt_cublasGetStatusString(cublasStatus_t status);
}

// Under names of our own: those of the library stay free for the one that the device has.
#define cublasCreate melt_cublasCreate
#define cublasDestroy melt_cublasDestroy
#define cublasSetStream melt_cublasSetStream
#define cublasSetMathMode melt_cublasSetMathMode
#define cublasSetWorkspace melt_cublasSetWorkspace
#define cublasSgemm melt_cublasSgemm
#define cublasSgemmBatched melt_cublasSgemmBatched
#define cublasSgemmStridedBatched melt_cublasSgemmStridedBatched
#define cublasStrsmBatched melt_cublasStrsmBatched
#define cublasGemmEx melt_cublasGemmEx
#define cublasGemmBatchedEx melt_cublasGemmBatchedEx
#define cublasGemmStridedBatchedEx melt_cublasGemmStridedBatchedEx
#define cublasGetStatusString melt_cublasGetStatusString
