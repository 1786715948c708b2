// A program's name among processes, which is otherwise the loader's: by it those who watch a device find the program.
#include <sys/prctl.h>

namespace {

const int named = prctl(PR_SET_NAME, MELT_NAME);

}  // namespace
