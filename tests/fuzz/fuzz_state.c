/* Fuzzes saved sessions: restores any bytes as the state of a session, saves it, forks it and goes
   on. Built with libFuzzer, or with -DFUZZ_MAIN to replay the files named on the command line. The
   first byte selects the model and the type of keys and values, and whether size, fingerprint and
   checksums are corrected: random bytes would never pass these checks. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#define FLASH_KEEP_INTERNALS
#include "../../flash.h"
#include "../mkmodel.h"
#include "seeds.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int holds)
{
    if (!holds) abort();
}

static int write_buf(void *user, const void *data, size_t bytes)
{
    mk_bytes((mk_buf *)user, data, bytes);
    return 0;
}

/* Returns an empty session, which is kept for all inputs. */
static flash_session *session(int which)
{
    static flash_session *s[SEED_STATES];
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    flash_model *m;
    if (!s[which]) {
        mk_file *f = mk_model(&seed_options, &seed_kinds[which % 2]);
        md.source.data = mk_emit(f, &md.source.bytes);
        mk_free(f);
        sd.n_ctx = 100;
        sd.chunk = 8;
        sd.kv = seed_kv[which / 2];
        sd.sampler.temperature = 1;
        sd.sampler.top_p = 0.9f;
        sd.sampler.stop = seed_stops;
        sd.sampler.n_stop = 1;
        expect(!flash_model_load(&m, &md, NULL) && !flash_session_create(&s[which], m, &sd));
    }
    flash_session_reset(s[which]);
    return s[which];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    flash_session *s = session(data[0] % SEED_STATES), *t;
    flash_source source = {0};
    flash_piece piece;
    flash_budget some = {3, 0};
    mk_buf b = {0};
    size_t n = size - 1;
    uint8_t *p = (uint8_t *)malloc(n ? n : 1); /* exact size: reads past the end are found */
    expect(p != NULL);
    memcpy(p, data + 1, n);
    if (data[0] & 128 && n >= FLASH__STATE_HEAD + 8 && n % 8 == 0) {
        flash__wr64(p + 72, n);
        flash__wr64(p + 16, flash__fingerprint(s->m));
        flash__wr64(p + 88, flash__sum_words(0, p, 11));
        flash__wr64(p + n - 8,
                    flash__sum_words(0, p + FLASH__STATE_HEAD, (n - FLASH__STATE_HEAD - 8) / 8));
    }
    source.data = p;
    source.bytes = n;
    flash_status st = flash_session_restore(s, &source, NULL);
    expect(st != FLASH_E_INTERNAL);
    if (st == FLASH_OK) {
        expect(!flash_session_save(s, write_buf, &b) && b.n == n);
        expect(!flash_session_fork(&t, s));
        flash_session_step(s, &some);
        flash_session_next(s, NULL, &piece);
        flash_session_next(s, NULL, &piece);
        flash_session_truncate(s, flash_session_position(s) / 2);
        flash_session_next(t, NULL, &piece);
        flash_session_truncate(t, n % 8 ? 0 : flash_session_position(t) - 1);
        flash_session_free(t);
    } else {
        expect(flash_session_position(s) + flash_session_pending(s) == 0);
    }
    free(b.p);
    free(p);
    return 0;
}

#ifdef FUZZ_MAIN
#include "replay.h"
#endif
