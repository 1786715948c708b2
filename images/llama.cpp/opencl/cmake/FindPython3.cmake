# llama.cpp has Python embed its kernels; builds have none, and a line of sed does it.
set(Python3_FOUND TRUE)
set(Python3_EXECUTABLE sh "${CMAKE_CURRENT_LIST_DIR}/../embed.sh")
