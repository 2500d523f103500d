/* A file that only uses the library. It has no implementation; it is linked with impl.c or
   impl.cpp. */
#include "../../flash.h"
#include <string.h>

int main(void)
{
    flash_model *m = NULL;
    flash_model_desc d;
    flash_error e;
    memset(&d, 0, sizeof d);
    if (flash_version() != FLASH_VERSION || !flash_build_info()[0]) return 1;
    if (strcmp(flash_status_text(FLASH_OK), "ok") || flash_isa_best() == FLASH_ISA_AUTO) return 2;
    d.source.data = "not a model";
    d.source.bytes = 11;
    return flash_model_load(&m, &d, &e) < 0 && !m && e.text[0] ? 0 : 3;
}
