/* Includes flash.h after headers that own many names. First, words that <windows.h> defines: */
#define near
#define far
#define small char
#define interface struct

/* Second, names of the headers of firmware vendors. These own many FLASH_ names, for the on-chip
   flash memory. An enumerator or a macro of flash.h with one of these names would not compile. */
#define FLASH ((void *)FLASH_BASE)
#define FLASH_H (0x1)
#define FLASH_BASE (0x1)
#define FLASH_SIZE (0x1)
#define FLASH_END (0x1)
#define FLASH_BANK1_END (0x1)
#define FLASH_PAGE_SIZE (0x1)
#define FLASH_USER_START_ADDR (0x1)
#define FLASH_R_BASE (0x1)
#define FLASH_WRITE_ADDR (0x1)
#define FLASH_SECTOR_SIZE (0x1)
#define FLASH_SECTOR_0 (0x1)
#define FLASH_SECTOR_1 (0x1)
#define FLASH_SECTOR_2 (0x1)
#define FLASH_SECTOR_3 (0x1)
#define FLASH_SECTOR_4 (0x1)
#define FLASH_SECTOR_5 (0x1)
#define FLASH_SECTOR_6 (0x1)
#define FLASH_SECTOR_7 (0x1)
#define FLASH_SECTOR_8 (0x1)
#define FLASH_SECTOR_9 (0x1)
#define FLASH_SECTOR_10 (0x1)
#define FLASH_SECTOR_11 (0x1)
#define FLASH_LATENCY_0 (0x1)
#define FLASH_LATENCY_1 (0x1)
#define FLASH_LATENCY_2 (0x1)
#define FLASH_LATENCY_3 (0x1)
#define FLASH_LATENCY_4 (0x1)
#define FLASH_LATENCY_5 (0x1)
#define FLASH_LATENCY_6 (0x1)
#define FLASH_LATENCY_7 (0x1)
#define FLASH_LATENCY (0x1)
#define FLASH_FLAG_EOP (0x1)
#define FLASH_FLAG_BSY (0x1)
#define FLASH_FLAG_WRPERR (0x1)
#define FLASH_FLAG_OPERR (0x1)
#define FLASH_KEY1 (0x1)
#define FLASH_KEY2 (0x1)
#define FLASH_KEYR_KEY (0x1)
#define FLASH_OPTKEY1 (0x1)
#define FLASH_OPT_KEY1 (0x1)
#define FLASH_CR_PG (0x1)
#define FLASH_CR_SER (0x1)
#define FLASH_CR_STRT (0x1)
#define FLASH_CR_LOCK (0x1)
#define FLASH_SR_BSY (0x1)
#define FLASH_SR_EOP (0x1)
#define FLASH_ACR_LATENCY (0x1)
#define FLASH_ACR_PRFTEN (0x1)
#define FLASH_ACR_ICEN (0x1)
#define FLASH_ACR_DCEN (0x1)
#define FLASH_ACR_LATENCY_5WS (0x1)
#define FLASH_BUSY (0x1)
#define FLASH_COMPLETE (0x1)
#define FLASH_TIMEOUT (0x1)
#define FLASH_ERROR (0x1)
#define FLASH_ERROR_PG (0x1)
#define FLASH_ERROR_WRP (0x1)
#define FLASH_ERROR_PROGRAM (0x1)
#define FLASH_IT_EOP (0x1)
#define FLASH_IRQn (0x1)
#define FLASH_PROC_NONE (0x1)
#define FLASH_TYPEPROGRAM_BYTE (0x1)
#define FLASH_TYPEPROGRAM_WORD (0x1)
#define FLASH_TYPEPROGRAM_DOUBLEWORD (0x1)
#define FLASH_TYPEERASE_SECTORS (0x1)
#define FLASH_TYPEERASE_PAGES (0x1)
#define FLASH_TYPEERASE_MASSERASE (0x1)
#define FLASH_VOLTAGE_RANGE_3 (0x1)
#define FLASH_BANK_1 (0x1)
#define FLASH_BANK_2 (0x1)
#define FLASH_SCALE2_LATENCY1_FREQ (0x1)

#include <stddef.h>

int flash_init(void);
int flash_read(const void *dev, long at, void *data, size_t n);
int flash_write(const void *dev, long at, const void *data, size_t n);
int flash_erase(const void *dev, long at, size_t n);
int flash_lock(void);
int flash_unlock(void);
size_t flash_get_page_count(const void *dev);

#define FLASH_IMPLEMENTATION
#include "../../flash.h"

#ifndef FLASH_LANGUAGE_MODELS_H
#error "the vendor's FLASH_H kept our header out"
#endif
