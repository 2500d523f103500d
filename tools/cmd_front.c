/* cmd_front.c - flash front: shows what a search has found, from its journal. */
#include "front.h"
#include <stdlib.h>
#include <string.h>

static void csv_text(const char *s)
{
    if (!strpbrk(s, ",\"")) {
        fputs(s, stdout);
        return;
    }
    putchar('"');
    for (; *s; s++) printf(*s == '"' ? "\"\"" : "%c", *s);
    putchar('"');
}

static void print_csv(const front *r)
{
    static const char *const states[] = {"pending", "done", "failed", "abandoned"};
    const space *sp = r->sp;
    char cell[SPACE_CELL];
    flash_trial t;
    printf("id,state");
    for (int i = 0; i < sp->n_param + space_n_values(sp); i++) {
        putchar(',');
        csv_text(i < sp->n_param ? sp->param[i].name : sp->value[i - sp->n_param]);
    }
    printf(",front\n");
    for (int id = 1; !flash_search_trial(r->s, id, &t); id++) {
        printf("%d,%s", id, states[t.state]);
        for (int i = 0; i < sp->n_param; i++) {
            space_cell(sp, t.x, i, cell);
            putchar(',');
            csv_text(cell);
        }
        for (int k = 0; k < space_n_values(sp); k++)
            printf(",%s", t.state == FLASH_TRIAL_DONE ? space_number(t.y[k], cell) : "");
        printf(",%d\n", r->on[id]);
    }
}

static void write_page(front *r, const char *journal_path, const char *path)
{
    r->f = cli_open(path);
    fprintf(r->f, "%s%s</style>\n<title>", html_head, front_style);
    html_text(r->f, journal_path);
    fputs("</title>\n</head>\n<body>\n<h1>Search in ", r->f);
    html_text(r->f, journal_path);
    fputs("</h1>\n<table class=\"facts\">\n", r->f);
    front_facts(r);
    fputs("</table>\n", r->f);
    front_plots(r);
    front_parallel(r);
    front_table(r);
    fputs("</body>\n</html>\n", r->f);
    cli_close(path);
}

static const char notes[] =
    "Prints the trials that no other is better than, from the journal that flash search writes,\n"
    "also while it runs, and a line of figures: the hypervolume up to the reference, and what\n"
    "part of it the last 20 trials added (gain). --csv prints all trials instead, with a column\n"
    "front; flash search --import reads that again. Example:\n"
    "  flash front run.jsonl --html report.html\n";

int cmd_front(int argc, char **argv)
{
    static journal j;
    const char *path, *page = NULL, *picture = NULL;
    int csv = 0;
    const cli_option options[] = {
        {"--html", "FILE", CLI_TEXT, &page, 0, 0, "write a page with plots, all in one file"},
        {"--svg", "FILE", CLI_TEXT, &picture, 0, 0, "write the plot of trials alone"},
        {"--csv", NULL, CLI_FLAG, &csv, 0, 0, "print all trials as CSV"},
        {0}};
    cli_parse_all(argc, argv, options, "JOURNAL", notes, &path);
    if (page && cli_same_file(page, path)) cli_usage("--html %s is the journal", page);
    if (picture && cli_same_file(picture, path)) cli_usage("--svg %s is the journal", picture);
    journal_view(&j, path);
    front r;
    front_open(&r, &j);
    if (page) write_page(&r, path, page);
    if (picture) {
        r.f = cli_open(picture);
        front_picture(&r);
        cli_close(picture);
    }
    if (csv)
        print_csv(&r);
    else
        space_print_front(&j.sp, j.s);
    front_close(&r);
    journal_close(&j);
    return 0;
}
