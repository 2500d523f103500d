/* The sessions whose states are seeds of fuzz_state: test_state writes them (GOLDEN_WRITE=1). */
enum { SEED_STATES = 6 };

static const mk_options seed_options = {2, 16,   2, 1, 8, 32, 64, 256, 0,
                                        0, NULL, 0, 0, 0, 0,  0,  0,   7};
static const mk_kind seed_kinds[2] = {{"gemma3", "wf", 4}, {"lfm2", "cf", 0}};
static const flash_type seed_kv[3] = {FLASH_TYPE_F32, FLASH_TYPE_F16, FLASH_TYPE_Q8_0};
static const char *const seed_stops[1] = {"the"};
