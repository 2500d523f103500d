/* Tests the grammars: which grammars are read and which are refused, which texts a grammar accepts,
   which tokens it allows, and that all generated texts are texts of the grammar. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include "mkmodel.h"
#include "test.h"
#include "../tools/json.c"
#if defined(__unix__) || defined(__APPLE__)
#include <dirent.h>
#endif

static const flash_model *any; /* a small model, for tests that need any vocabulary */

static flash_model *load(mk_file *f, uint8_t **file)
{
    flash_model_desc d = {0};
    flash_model *m = NULL;
    d.source.data = *file = mk_emit(f, &d.source.bytes);
    CHECK_EQ(flash_model_load(&m, &d, NULL), FLASH_OK);
    mk_free(f);
    return m;
}

static flash_status create(flash_grammar **g, const flash_model *m, const char *text, size_t bytes,
                           flash_error *err)
{
    flash_grammar_desc d = {0};
    d.text = text;
    d.bytes = bytes;
    return flash_grammar_create(g, m, &d, err);
}

static flash_grammar *grammar(const flash_model *m, const char *text)
{
    flash_grammar *g = NULL;
    flash_error err = {0};
    if (!CHECK_EQ(create(&g, m, text, strlen(text), &err), FLASH_OK)) printf("    %s\n", err.text);
    return g;
}

/* --- texts, byte by byte --------------------------------------------------------------------- */

static flash__reading *reading(const flash_grammar *g)
{
    flash__arena a = {NULL, 0};
    flash__reading *t;
    flash__reading_plan(g->m, &a);
    a.base = (uint8_t *)mk_alloc(NULL, a.used);
    a.used = 0;
    t = flash__reading_plan(g->m, &a);
    flash__reading_start(t, g, 0);
    return t;
}

/* Returns how many of the n bytes can begin a text of the grammar. *ends becomes 1 if all n bytes
   are a text of the grammar, else 0. */
static size_t reads(const flash_grammar *g, const char *text, size_t n, int *ends)
{
    flash__reading *t = reading(g);
    size_t i = 0;
    int to;
    for (; i < n && !t->stuck; i++) {
        to = flash__advance(t, t->now, (uint8_t)text[i]);
        if (to == -2) {
            flash__refresh(t);
            to = flash__advance(t, t->now, (uint8_t)text[i]);
        }
        if (to < 0) break;
        t->now = to;
    }
    *ends = i == n && !t->stuck && t->place[t->now].ends;
    free(t);
    return i;
}

static int accepts(const flash_grammar *g, const char *text)
{
    int ends;
    reads(g, text, strlen(text), &ends);
    return ends;
}

/* Checks texts of the grammar (good) and texts that it must not accept (bad). Each of them ends
   with a line feed. */
static void both(const char *text, const char *good, const char *bad)
{
    flash_grammar *g = grammar(any, text);
    for (int want = 1; want >= 0 && g; want--) {
        for (const char *p = want ? good : bad; *p;) {
            size_t n = strcspn(p, "\n");
            int ends;
            reads(g, p, n, &ends);
            if (!CHECK_EQ(ends, want)) printf("    grammar %s, text \"%.*s\"\n", text, (int)n, p);
            p += n + 1;
        }
    }
    flash_grammar_free(g);
}

static void test_dialect(void)
{
    SECTION("dialect");
    both("root ::= \"a\"", "a\n", "\nb\naa\n");
    both("root ::= \"a\"*", "\na\naaaa\n", "b\nab\n");
    both("root ::= \"ab\"+", "ab\nabab\n", "\na\naba\n");
    both("root ::= \"a\"? \"b\"", "b\nab\n", "a\naab\n");
    both("root ::= \"a\"{3}", "aaa\n", "aa\naaaa\n\n");
    both("root ::= \"a\"{2,}", "aa\naaaaa\n", "a\n\n");
    both("root ::= \"a\"{0,}", "\naa\n", "b\n");
    both("root ::= \"a\"{1,3} \"b\"", "ab\naab\naaab\n", "b\naaaab\n");
    both("root ::= \"a\"{0,2} \"b\"", "b\nab\naab\n", "aaab\n");
    both("root ::= \"x\" ((\"a\"{90}){90}){0}", "x\n", "xa\n");
    both("root ::= \"x\" \"a\"{0} \"b\"{0,0}", "x\n", "xa\nxb\n");
    both("root ::= \"a\"{ 1 , 2 }", "a\naa\n", "aaa\n");
    both("root ::= (\"a\" | \"b\"){2} \"c\"", "aac\nabc\nbac\n", "ac\nabac\n");
    both("root ::= (\"a\" \"b\"?){1,2}*", "\nab\naab\nabaabab\n", "b\nabb\n");
    both("root ::= \"a\" | \"b\" | \"c\" \"d\"", "a\nb\ncd\n", "c\nd\nad\n");
    both("root ::= | \"a\"", "\na\n", "aa\n");
    both("root ::= \"a\" |\n  \"b\"", "a\nb\n", "ab\n");
    both("root ::=\n  \"a\"", "a\n", "\n");
    both("root ::= (\n \"a\" # one\n # two\n \"b\"\n)\n", "ab\n", "a\n");
    both("# first\r\n\r\nroot ::= x-1 Y_2 # call\r\nx-1 ::= \"x\"\r\nY_2 ::= \"y\" x-1\r\n#",
         "xyx\n", "xy\n");
    both("root ::= [abc] [^abc] [a-c0-9]", "adb\nbx7\n", "aab\ndda\nadz\n");
    both("root ::= [a-] [-+] [+-]", "a-+\n-+-\n", "b++\na++a\naa+\n");
    both("root ::= [\\]\\[^] [a^]?", "]\n[a\n^^\n", "a\n");
    both("root ::= \"\\x41\\u00e9\\U0001F600\\t\\\"\\\\\\[\\]\\-\"",
         "A\xC3\xA9\xF0\x9F\x98\x80\t\"\\[]-\n", "A\n");
    both("root ::= [\xC3\xA0-\xC3\xBC]+", "\xC3\xA9\n\xC3\xA0\xC3\xBC\n",
         "\xC3\xBD\n\xC3\n\xC2\xA9\n");
    both("root ::= [^\xC3\xA9]", "e\n\xC3\xA8\n\xF0\x9F\x98\x80\n", "\xC3\xA9\n\xC3\n");
    both("root ::= .{2}", "ab\n\xE4\xB8\xAD\xF0\x9F\x98\x80\n", "a\n\xE4\xB8\n");
    /* UTF-8 has no overlong forms, no surrogates, and nothing above U+10FFFF. */
    both("root ::= .",
         "\xE0\xA0\x80\n\xED\x9F\xBF\n\xEE\x80\x80\n\xF0\x90\x80\x80\n\xF4\x8F\xBF\xBF\n",
         "\xE0\x9F\xBF\n\xED\xA0\x80\n\xF0\x8F\xBF\xBF\n\xF4\x90\x80\x80\n\xC0\x80\n\xC1\xBF\n"
         "\xF5\n"
         "\xFF\n\x80\n");
    both("root ::= [\\ud7ff-\\ue000]", "\xED\x9F\xBF\n\xEE\x80\x80\n",
         "\xED\xA0\x80\n\xED\xBF\xBF\n");
    /* Rules that call themselves, at the end and in the middle. */
    both("root ::= \"(\" root \")\" | \"x\" root | \"\"", "\nx\n((x))\nxx(x())\n", ")\n(x\n(x)x\n");
    both("root ::= a b\na ::= | \"a\" a\nb ::= \"b\" b |", "\naab\nbbb\n", "ba\n");
    both("root ::= e\ne ::= t (\"+\" t)*\nt ::= \"n\" | \"(\" e \")\"", "n\nn+n\n((n)+n)+n\n",
         "n+\n(n\nnn\n");
    /* Empty literals, choices and repetitions. */
    both("root ::= (\"\"* (\"\" | \"\")+){3} ((\"a\"*)*)*", "\na\naaa\n", "b\n");
}

/* Many choices at every other character: the table of what was visited is filled and emptied again
   and again. */
static void test_many_choices(void)
{
    enum { LETTERS = 15, N = LETTERS * LETTERS };
    char text[8000] = "root ::= x+\nx ::= ", good[2 * N + 2] = "";
    SECTION("many choices");
    for (int i = 0; i < N; i++) {
        char pair[3] = {(char)('a' + i / LETTERS), (char)('a' + i % LETTERS), 0};
        sprintf(text + strlen(text), "%s\"%s\"", i ? " | " : "", pair);
        memcpy(good + 2 * (i * 7 % N), pair, 2);
    }
    good[2 * N] = '\n';
    both(text, good, "a\naab\nzz0\n");
}

/* --- what is refused ------------------------------------------------------------------------- */

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && !strcmp(text + n - k, end);
}

static void refused(const char *text, size_t n, flash_status want, const char *sentence)
{
    flash_grammar *g = (flash_grammar *)(void *)&n;
    flash_error err = {0};
    if (!CHECK_EQ(create(&g, any, text, n, &err), want) || !CHECK(!g)
        || !CHECK(ends_with(err.text, sentence))) {
        printf("    %.60s: %s\n", text, err.text);
    }
    if (g && want) flash_grammar_free(g);
}

static void test_refused(void)
{
    static const struct {
        const char *text;
        flash_status status;
        const char *sentence;
    } bad[] = {
        {"", FLASH_E_FORMAT, "line 1, column 1: there is no rule"},
        {" # nothing\n", FLASH_E_FORMAT, "there is no rule"},
        {"roots ::= \"a\"", FLASH_E_FORMAT, "there is no rule root"},
        {"root ::= missing", FLASH_E_FORMAT, "line 1, column 10: there is no rule missing"},
        {"root ::= \"a\"\nroot ::= \"b\"", FLASH_E_FORMAT,
         "line 2, column 1: there already is a rule root"},
        {"root := \"a\"", FLASH_E_FORMAT, "column 6: ::= is missing"},
        {"root", FLASH_E_FORMAT, "::= is missing"},
        {"root\n::= \"a\"", FLASH_E_FORMAT, "::= is missing"},
        {"::= \"a\"", FLASH_E_FORMAT, "line 1, column 1: not the name of a rule"},
        {"root ::= \"a\" )", FLASH_E_FORMAT,
         "column 14: neither part of a rule nor the end of its line"},
        {"root ::= \"a\"\n | \"b\"", FLASH_E_FORMAT, "line 2, column 2: not the name of a rule"},
        {"root ::= (\"a\"", FLASH_E_FORMAT, "a ) is missing"},
        {"root ::= \"a", FLASH_E_FORMAT, "the literal has no \""},
        {"root ::= \"a\\", FLASH_E_FORMAT, "the text ends here"},
        {"root ::= \"\\q\"", FLASH_E_FORMAT, "column 12: no such escape"},
        {"root ::= \"\\x4g\"", FLASH_E_FORMAT, "column 14: not a hexadecimal digit"},
        {"root ::= \"\\u12\"", FLASH_E_FORMAT, "not a hexadecimal digit"},
        {"root ::= \"\\U00110000\"", FLASH_E_FORMAT, "characters end at 10FFFF"},
        {"root ::= \"\\ud800\"", FLASH_E_FORMAT, "a surrogate is no character"},
        {"root ::= [a", FLASH_E_FORMAT, "the set has no ]"},
        {"root ::= [z-a]", FLASH_E_FORMAT, "a range that ends before it begins"},
        {"root ::= []", FLASH_E_FORMAT, "no character can be in this set"},
        {"root ::= [\\ud800-\\udfff]", FLASH_E_FORMAT, "no character can be in this set"},
        {"root ::= [^\\x00-\\U0010ffff]", FLASH_E_FORMAT, "no character can be in this set"},
        {"root ::= *", FLASH_E_FORMAT, "column 10: nothing to repeat"},
        {"root ::= \"a\" | {2}", FLASH_E_FORMAT, "nothing to repeat"},
        {"root ::= \"a\"{x}", FLASH_E_FORMAT, "not a number of times"},
        {"root ::= \"a\"{,3}", FLASH_E_FORMAT, "not a number of times"},
        {"root ::= \"a\"{3,2}", FLASH_E_FORMAT, "at most is less than at least"},
        {"root ::= \"a\"{3", FLASH_E_FORMAT, "a } is missing"},
        {"root ::= \"a\"{40000}", FLASH_E_TOO_LARGE, "repetitions"},
        {"root ::= \"a\"{1,99999999999999999999}", FLASH_E_TOO_LARGE, "repetitions"},
        {"root ::= \"ab\"{20000}", FLASH_E_TOO_LARGE, "steps"},
        {"root ::= (((\"a\"{99}){99}){99}){99}", FLASH_E_TOO_LARGE, "steps"},
        {"root ::= <think>", FLASH_E_UNSUPPORTED, "tokens in a grammar are not supported"},
        {"root ::= !<[7]>", FLASH_E_UNSUPPORTED, "tokens in a grammar are not supported"},
        {"root ::= \"a\xFF\"", FLASH_E_FORMAT, "line 1, column 12: not UTF-8"},
        /* Left recursion: direct, through another rule, behind parts that may be empty, in choices
           and in groups. */
        {"root ::= root \"a\" | \"b\"", FLASH_E_FORMAT,
         "line 1, column 1: this rule begins with "
         "itself (left recursion): root"},
        {"root ::= \"a\" x\nx ::= y \"b\"\ny ::= x | \"c\"", FLASH_E_FORMAT, "left recursion): y"},
        {"root ::= \"a\" x\nx ::= e \"z\"* x \"b\" | \"c\"\ne ::= \"d\"?", FLASH_E_FORMAT,
         "line 2, column 1: this rule begins with itself (left recursion): x"},
        {"root ::= \"a\" | (\"b\" | (root)+) \"c\"", FLASH_E_FORMAT, "left recursion): root"},
        {"root ::= e root | \"a\"\ne ::= f f\nf ::= \"x\" |", FLASH_E_FORMAT,
         "left recursion): root"},
        {"root ::= root", FLASH_E_FORMAT, "left recursion): root"},
        {"root ::= \"a\"\nunused ::= unused", FLASH_E_FORMAT, "left recursion): unused"},
        /* Rules that no finite text satisfies. */
        {"root ::= \"a\" root", FLASH_E_FORMAT, "this rule never ends: root"},
        {"root ::= \"a\" | \"b\" x\nx ::= \"(\" x \")\"", FLASH_E_FORMAT,
         "line 2, column 1: this "
         "rule never ends: x"},
    };
    SECTION("refused");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(bad[i].text, strlen(bad[i].text), bad[i].status, bad[i].sentence);
    refused("root ::= \"a\0b\"", 14, FLASH_E_FORMAT, "column 12: not UTF-8");
    refused("root ::= \"a\" #\0", 15, FLASH_E_FORMAT, "not UTF-8");
    refused(NULL, 3, FLASH_E_ARGUMENT, "");
    refused("root ::= \"\xC3", 11, FLASH_E_FORMAT, "not UTF-8");

    SECTION("large texts");
    const size_t n = 10 << 20;
    const char *fill[] = {"(", "a ", "(\"a\"|", "\"a\"?",       "{", "[",
                          "*", "#",  "\\",      "\"a\"{32767}", "|", "\n"};
    for (size_t k = 0; k < sizeof fill / sizeof *fill; k++) {
        char *text = (char *)mk_alloc(NULL, n + 64);
        flash_grammar *g = NULL;
        size_t at = (size_t)sprintf(text, "root ::= ");
        for (; at < n; at += strlen(fill[k])) memcpy(text + at, fill[k], strlen(fill[k]));
        CHECK(create(&g, any, text, at, NULL) < 0 || k == 7 || k == 11);
        flash_grammar_free(g);
        free(text);
    }
    char *many = (char *)mk_alloc(NULL, 1 << 20); /* a chain of rules, in the slowest order */
    size_t at = (size_t)sprintf(many, "root ::= r0\n");
    flash_grammar *g;
    for (int i = 0; i < 4094; i++) at += (size_t)sprintf(many + at, "r%d ::= r%d?\n", i, i + 1);
    at += (size_t)sprintf(many + at, "r4094 ::= \"x\"\n");
    CHECK_EQ(create(&g, any, many, at, NULL), FLASH_OK);
    CHECK(g && !accepts(g, "x")); /* needs more than 1,024 steps before one character */
    flash_grammar_free(g);
    at += (size_t)sprintf(many + at, "r4095 ::= \"x\"\n");
    refused(many, at, FLASH_E_TOO_LARGE, "more than 4096 rules");
    free(many);
    char deep[300];
    for (int k = 100; k <= 101; k++) {
        memcpy(deep, "root ::= ", 9);
        memset(deep + 9, '(', (size_t)k);
        memset(deep + 9 + k, ')', (size_t)k);
        CHECK_EQ(create(&g, any, deep, 9 + 2 * (size_t)k, NULL),
                 k == 100 ? FLASH_OK : FLASH_E_TOO_LARGE);
        flash_grammar_free(g);
    }
}

/* --- JSON ------------------------------------------------------------------------------------ */

#if defined(__unix__) || defined(__APPLE__)
static void test_suite(void)
{
    flash_grammar *g = grammar(any, flash_grammar_json());
    const char *one = test_shared("json/test_parsing/y_array_empty.json");
    char folder[1024], path[1400];
    int seen = 0;
    DIR *dir = NULL;
    SECTION("JSONTestSuite");
    if (one) {
        snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(one, '/') - one), one);
        dir = opendir(folder);
    }
    if (!dir) SKIP("JSONTestSuite", "json/test_parsing");
    for (struct dirent *e; dir && g && (e = readdir(dir)) != NULL;) {
        size_t n;
        int ends;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        char *text = e->d_name[1] == '_' ? (char *)test_read(path, &n) : NULL;
        if (!text) continue;
        reads(g, text, n, &ends);
        if (*e->d_name != 'i' && !CHECK_EQ(ends, *e->d_name == 'y')) printf("    %s\n", e->d_name);
        seen++;
        free(text);
    }
    if (dir) {
        CHECK(seen > 300);
        closedir(dir);
    }
    flash_grammar_free(g);
}
#else
static void test_suite(void) { SKIP("JSONTestSuite", "no folders here"); }
#endif

/* --- which tokens are left ------------------------------------------------------------------- */

/* Returns a session that has processed one token of prompt. The generated text is still empty. */
static flash_session *session(const flash_model *m, const flash_sampler *sp, int n_ctx)
{
    /* After BOS, the first space of the text is not shown; after other tokens it is. */
    const int32_t begin[] = {sp->seed % 2 ? flash_token_bos(m) : 50};
    flash_session_desc d = {0};
    flash_session *s = NULL;
    d.sampler = *sp;
    d.n_ctx = n_ctx;
    d.chunk = 8;
    CHECK_EQ(flash_session_create(&s, m, &d), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, begin, 1), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    return s;
}

/* Returns 1 if text followed by the token is the beginning of a text of g or, for a token that ends
   the text, if text is one itself. Reads byte by byte from the start, without the code that makes
   the masks. fresh: 1 if the first space of the token is not shown. */
static int legal(const flash_grammar *g, const char *text, size_t n, int fresh, int32_t id)
{
    char *all = (char *)mk_alloc(NULL, n + 1000);
    size_t more;
    int ends, good;
    reads(g, text, n, &ends);
    if (flash_token_is_end(g->m, id)) {
        free(all);
        return ends;
    }
    memcpy(all, text, n);
    flash_detokenize(g->m, &id, 1, FLASH_TEXT_CONTINUE, all + n, 1000, &more);
    if (more && fresh && all[n] == ' ') {
        memmove(all + n, all + n + 1, --more);
        good = 1;
    } else {
        good = more > 0;
    }
    good = good && reads(g, all, n + more, &ends) == n + more;
    free(all);
    return good;
}

static const char *const forms[] = {
    ("root ::= \"{\" ws (pair (\",\" ws pair)*)? \"}\"\nws ::= [ \\n]?\n"
     "pair ::= \"\\\"\" [^\"\\\\]{0,9} \"\\\"\" \":\" ws ([0-9]{1,3} | root | \"null\")"),
    "root ::= [^a-z]{1,6} [a-z\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80 ]* \".\" | \" the\"",
    "root ::= \"(\" root \")\" root | [\\u00e0-\\u00ff] | .{0,3}",
    "root ::= (\"the \" | \"they \" | [a-t]+ \" \")+",
};

/* Along random texts, checks every token of the vocabulary in the mask, and that a session with a
   bias against the other tokens, in place of the grammar, draws the same token. */
static void test_masks(const flash_model *m, int tokens)
{
    static const flash_sampler kinds[] = {
        {.temperature = 1.5f},
        {.temperature = 0},
        {.temperature = 0, .repeat_penalty = 1.3f},
        {.temperature = 1, .top_k = 3},
        {.temperature = 2, .top_p = 0.7f},
        {.temperature = 1, .min_p = 0.3f, .frequency_penalty = 0.5f},
        {.temperature = 1.2f, .typical_p = 0.6f, .top_k = 20},
    };
    int V = flash_model_arch(m)->n_vocab, ended = 0;
    flash_logit_bias *bias = (flash_logit_bias *)mk_alloc(NULL, (size_t)V * sizeof *bias);
    SECTION("masks");
    for (size_t k = 0; k < sizeof forms / sizeof *forms * (sizeof kinds / sizeof *kinds); k++) {
        flash_sampler sp = kinds[k % (sizeof kinds / sizeof *kinds)], free_sp = sp;
        flash_grammar *g = grammar(m, forms[k / (sizeof kinds / sizeof *kinds)]);
        flash_session *s, *other;
        char text[2000];
        size_t n = 0, more;
        sp.grammar = g;
        sp.seed = free_sp.seed = k + 1;
        s = session(m, &sp, 128);
        other = session(m, &free_sp, 128);
        for (int step = 0; step < tokens; step++) {
            int fresh = !step && s->text_fresh, any_left = 0;
            flash__reading *t = flash__text_state(s);
            if (step % 3 == 2) /* as happens when the pool is full */
                flash__refresh(t);
            const uint32_t *mask = flash__mask(t, m);
            for (int i = 0; i < V; i++) {
                int want = legal(g, text, n, fresh, i), got = (int)(mask[i / 32] >> i % 32 & 1);
                bias[i].token = i;
                bias[i].bias = want ? 0 : -1e30f;
                any_left |= want;
                if (got != want) {
                    CHECK_EQ(got, want);
                    printf("    form %d, token %d after \"%.*s\"\n", (int)(k / 7), i, (int)n, text);
                    i = V;
                }
                if (flash__allowed(t, m, i) != want) CHECK(!"allowed differs from the mask");
            }
            test_passed++;
            flash_sampler biased = free_sp;
            biased.bias = bias;
            biased.n_bias = V;
            other->desc.sampler = biased;
            int32_t id = flash_session_sample(s), as = flash_session_sample(other);
            CHECK_EQ(any_left ? as : -1, id);
            if (id < 0 || flash_token_is_end(m, id)) {
                ended++;
                break;
            }
            CHECK_EQ(flash_detokenize(m, &id, 1, FLASH_TEXT_CONTINUE, text + n, 1000, &more),
                     FLASH_OK);
            if (fresh && text[n] == ' ') memmove(text + n, text + n + 1, --more);
            n += more;
            CHECK_EQ(flash_session_feed(s, &id, 1), FLASH_OK);
            CHECK_EQ(flash_session_feed(other, &id, 1), FLASH_OK);
            flash_session_step(s, NULL);
            flash_session_step(other, NULL);
        }
        flash_session_free(s);
        flash_session_free(other);
        flash_grammar_free(g);
    }
    CHECK(ended > 0);
    free(bias);
}

/* --- whatever comes out ---------------------------------------------------------------------- */

static const char mood[] =
    "{\"type\":\"object\",\"properties\":{\"mood\":{\"enum\":[\"calm\",\"angry\",\"afraid\"]},"
    "\"says\":{\"type\":\"string\",\"maxLength\":12},\"trust\":{\"type\":\"integer\"},"
    "\"seen\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/thing\"},\"maxItems\":2}},"
    "\"required\":[\"mood\",\"says\"],\"additionalProperties\":false,"
    "\"$defs\":{\"thing\":{\"anyOf\":[{\"type\":\"boolean\"},{\"type\":[\"number\",\"null\"]},"
    "{\"const\":{\"x\": \"\\u00e9\"}}]}}}";

static flash_grammar *from_schema(const flash_model *m, const char *schema)
{
    char text[8000];
    size_t n = 0;
    flash_error err = {0};
    flash_grammar *g = NULL;
    if (!CHECK_EQ(flash_grammar_from_schema(schema, strlen(schema), text, sizeof text, &n, &err),
                  FLASH_OK)
        || !CHECK_EQ(create(&g, m, text, n, &err), FLASH_OK)) {
        printf("    %s: %s\n%.*s\n", schema, err.text, (int)n, text);
    }
    return g;
}

static int mood_ok(const char *text, size_t n)
{
    json_error err;
    json *j = json_read(text, n, 0, &err);
    int ok = j && j->type == JSON_OBJECT && json_get(j, "mood") && json_get(j, "says");
    for (json *c = ok ? j->child : NULL; c; c = c->next) {
        ok &= !strcmp(c->key, "mood") ? c->type == JSON_TEXT && strstr("calm angry afraid", c->text)
            : !strcmp(c->key, "says") ? c->type == JSON_TEXT
            : !strcmp(c->key, "trust")
            ? c->type == JSON_NUMBER && !strpbrk(c->text, ".eE")
            : !strcmp(c->key, "seen") && c->type == JSON_LIST && c->n <= 2;
    }
    json_free(j);
    return ok;
}

static void test_samples(const flash_model *m, int samples)
{
    flash_grammar *g = from_schema(m, mood);
    flash_sampler sp = {0};
    flash_session *s;
    int done = 0;
    SECTION("samples");
    sp.temperature = 1.5f;
    sp.grammar = g;
    s = session(m, &sp, 250);
    for (int i = 0; i < samples; i++) {
        char text[4000];
        size_t n = 0;
        flash_piece piece;
        flash_status st;
        sp.seed = (uint64_t)i + 1;
        sp.top_k = i % 4 == 3 ? 1 + i % 40 : 0;
        sp.top_p = i % 4 == 2 ? 0.9f : 0;
        CHECK_EQ(flash_session_truncate(s, 1), FLASH_OK);
        CHECK_EQ(flash_session_truncate(s, 0), FLASH_OK);
        CHECK_EQ(flash_session_sampler(s, &sp), FLASH_OK);
        while ((st = flash_session_next(s, NULL, &piece)) == FLASH_OK) {
            memcpy(text + n, piece.text, piece.bytes);
            n += piece.bytes;
        }
        done += st == FLASH_END_OF_TEXT && mood_ok(text, n);
        if (st != FLASH_END_OF_TEXT || !mood_ok(text, n))
            printf("    %s: %.*s\n", flash_status_text(st), (int)n, text);
    }
    CHECK_EQ(done, samples);
    flash_session_free(s);
    flash_grammar_free(g);
}

/* --- schemas --------------------------------------------------------------------------------- */

static void schema(const char *text, const char *good, const char *bad)
{
    flash_grammar *g = from_schema(any, text);
    for (int want = 1; want >= 0 && g; want--) {
        for (const char *p = want ? good : bad; *p;) {
            size_t n = strcspn(p, "\t");
            int ends;
            reads(g, p, n, &ends);
            if (!CHECK_EQ(ends, want)) printf("    schema %s, text \"%.*s\"\n", text, (int)n, p);
            p += n + 1;
        }
    }
    flash_grammar_free(g);
}

static void no_schema(const char *text, flash_status want, const char *sentence)
{
    char out[4000];
    size_t n = 77;
    flash_error err = {0};
    if (!CHECK_EQ(flash_grammar_from_schema(text, strlen(text), out, sizeof out, &n, &err), want)
        || !CHECK(ends_with(err.text, sentence))) {
        printf("    %s: %s\n", text, err.text);
    }
    CHECK_EQ(n, 77);
}

static void test_schemas(void)
{
    SECTION("schemas");
    schema("true", "1\tnull\t[{\"a\": []}]\t", "\tx\t");
    schema("{}", "1\t\"x\"\t{}\t", " 1\t");
    schema("{\"type\":\"null\"}", "null\t", "nul\tnulll\t0\t");
    schema("{\"type\":\"boolean\"}", "true\tfalse\t", "True\tnull\t");
    schema("{\"type\":\"integer\"}", "0\t-12\t1234567890123456\t",
           "01\t1.0\t12345678901234567\t-\t");
    schema("{\"type\":\"number\"}", "0\t-1.5\t2e10\t1.25E-7\t", "1.\t.5\t1e\t+1\t1e999\t");
    schema("{\"type\":\"string\"}", "\"\"\t\"a\\n\\u00e9\xC3\xA9\"\t\"\\ud83d\\ude00\"\t",
           "\"\\ud83d\"\ta\t\"\n\"\t\"\\x\"\t");
    schema("{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
           "\"ab\"\t\"abc\"\t\"\xC3\xA9\\n\"\t", "\"a\"\t\"abcd\"\t");
    schema("{\"type\":[\"integer\",\"null\"]}", "1\tnull\t", "true\t");
    schema("{\"enum\":[\"a\\\"b\",1,null,[1, 2]]}", "\"a\\\"b\"\t1\tnull\t[1, 2]\t",
           "\"a\t2\t[1,2]\t");
    schema("{\"const\":\"x\",\"type\":\"string\"}", "\"x\"\t", "\"y\"\t");
    schema("{\"anyOf\":[{\"type\":\"integer\"},{\"const\":\"x\"}]}", "7\t\"x\"\t", "\"y\"\t");
    schema("{\"oneOf\":[{\"type\":\"null\"},{\"type\":\"boolean\"}]}", "null\ttrue\t", "1\t");
    schema("{\"type\":\"array\"}", "[]\t[1,\"a\"]\t", "[1,]\t[\t");
    schema("{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}", "[]\t[1]\t[1, 2]\t",
           "[\"a\"]\t");
    schema("{\"items\":{\"type\":\"integer\"},\"minItems\":1}", "[1]\t[1,2,3]\t", "[]\t");
    schema("{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
           "[1,2]\t[1,2,3]\t", "[1]\t[1,2,3,4]\t");
    schema("{\"type\":\"array\",\"maxItems\":0}", "[]\t", "[1]\t");
    schema("{\"type\":\"array\",\"maxItems\":1}", "[]\t[1]\t", "[1,2]\t");
    schema("{\"type\":\"object\"}", "{}\t{\"a\":1,\"b\":{}}\t", "{\"a\"}\t[]\t");
    schema("{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
           "{}\t{\"a\":1, \"b\": 2}\t", "{\"a\":\"x\"}\t");
    schema("{\"type\":\"object\",\"additionalProperties\":false}", "{}\t", "{\"a\":1}\t");
    schema("{\"properties\":{\"a\":{},\"b\":{},\"c\":{}}}",
           "{}\t{\"a\":1}\t{\"b\":1}\t{\"a\":1,\"c\":2}\t{\"a\":1,\"b\":2,\"c\":3}\t{\"c\":3}\t",
           "{\"b\":1,\"a\":2}\t{\"a\":1,}\t{,\"a\":1}\t{\"d\":1}\t");
    schema("{\"properties\":{\"a\":{},\"b\":{},\"c\":{},\"d\":{}},\"required\":[\"b\",\"d\"]}",
           "{\"b\":1,\"d\":2}\t{\"a\":0,\"b\":1,\"d\":2}\t{\"b\":1,\"c\":0,\"d\":2}\t"
           "{\"a\":0,\"b\":1,\"c\":0,\"d\":2}\t{\n  \"b\": 1,\n  \"d\": 2\n}\t",
           "{\"b\":1}\t{\"d\":2}\t{}\t{\"a\":0,\"d\":1}\t{\"d\":2,\"b\":1}\t");
    schema("{\"$ref\":\"#/$defs/list\",\"$defs\":{\"list\":{\"anyOf\":[{\"type\":\"null\"},"
           "{\"properties\":{\"next\":{\"$ref\":\"#/$defs/list\"}},\"required\":[\"next\"]}]}}}",
           "null\t{\"next\":null}\t{\"next\":{\"next\":null}}\t", "{}\t{\"next\":1}\t");
    schema("{\"title\":\"t\",\"items\":{\"$ref\":\"#\"}}", "[]\t[[],[[]]]\t", "[1]\t");
    schema("{\"definitions\":{\"n\":{\"type\":\"integer\"}},"
           "\"items\":{\"$ref\":\"#/definitions/n\"}}",
           "[1]\t", "[[]]\t");
    schema(" { \"const\" : 2 } ", "2\t", "1\t");

    no_schema("", FLASH_E_FORMAT, "line 1, column 1: this is no JSON");
    no_schema("{\"type\":\"integer\"} x", FLASH_E_FORMAT, "column 20: this is no JSON");
    no_schema("{\"type\":\"integer\",}", FLASH_E_FORMAT, "no JSON");
    no_schema("{\"type\":01}", FLASH_E_FORMAT, "no JSON");
    no_schema("{\"type\":\"int\"}", FLASH_E_FORMAT, "there is no type \"int\"");
    no_schema("{\"type\":[]}", FLASH_E_FORMAT, "nothing to choose from");
    no_schema("{\"enum\":[]}", FLASH_E_FORMAT, "nothing to choose from");
    no_schema("{\"enum\":1}", FLASH_E_FORMAT, "no value for enum");
    no_schema("[]", FLASH_E_FORMAT, "no schema that anything can match");
    no_schema("false", FLASH_E_UNSUPPORTED, "anything can match");
    no_schema("{\"type\":\"string\",\"pattern\":\"a\"}", FLASH_E_UNSUPPORTED,
              "line 1, column 19: keyword not supported: pattern");
    no_schema("{\"type\":\"integer\",\"minimum\":0}", FLASH_E_UNSUPPORTED,
              "not supported: minimum");
    no_schema("{\"items\":{\"$defs\":{}}}", FLASH_E_UNSUPPORTED, "not supported: $defs");
    no_schema("{\"anyOf\":[true],\"properties\":{}}", FLASH_E_UNSUPPORTED,
              "beside the others: properties");
    no_schema("{\"$ref\":\"#/$defs/x\"}", FLASH_E_FORMAT, "nothing is there: #/$defs/x");
    no_schema("{\"$ref\":\"http://x\"}", FLASH_E_UNSUPPORTED,
              "elsewhere is not supported: http://x");
    no_schema("{\"required\":[\"a\"],\"properties\":{}}", FLASH_E_FORMAT, "among the properties");
    no_schema("{\"properties\":{\"a\":{}},\"additionalProperties\":true}", FLASH_E_UNSUPPORTED,
              "must be false");
    no_schema("{\"type\":\"array\",\"minItems\":2,\"maxItems\":1}", FLASH_E_FORMAT,
              "less than minItems");
    no_schema("{\"type\":\"array\",\"minItems\":-1}", FLASH_E_FORMAT, "up to 99999 for minItems");
    no_schema("{\"type\":\"string\",\"maxLength\":1.5}", FLASH_E_FORMAT,
              "up to 99999 for maxLength");
    no_schema("{\"type\":\"string\",\"maxLength\":100000}", FLASH_E_FORMAT,
              "up to 99999 for maxLength");
    no_schema("\"\xFF\"", FLASH_E_FORMAT, "column 2: not UTF-8");
    char deep[140];
    memset(deep, '[', 65);
    deep[65] = 0;
    no_schema(deep, FLASH_E_TOO_LARGE, "more than 64 others");
    for (int n = 64; n < 66; n++) { /* as many properties as may all be left out, and one more */
        char many[2000] = "{\"properties\":{";
        size_t used;
        for (int i = 0; i < n; i++) sprintf(many + strlen(many), "%s\"p%d\":{}", i ? "," : "", i);
        strcat(many, "}}");
        if (n > 64)
            no_schema(many, FLASH_E_TOO_LARGE,
                      "line 1, column 1: more than 64 properties and none required");
        else
            CHECK_EQ(flash_grammar_from_schema(many, strlen(many), NULL, 0, &used, NULL),
                     FLASH_E_RANGE);
    }
    /* The size needed is returned, whatever the room. */
    size_t n = 0, again = 0;
    CHECK_EQ(flash_grammar_from_schema(mood, strlen(mood), NULL, 0, &n, NULL), FLASH_E_RANGE);
    char *text = (char *)mk_alloc(NULL, n);
    CHECK_EQ(flash_grammar_from_schema(mood, strlen(mood), text, n - 1, &again, NULL),
             FLASH_E_RANGE);
    CHECK_EQ(flash_grammar_from_schema(mood, strlen(mood), text, n, &again, NULL), FLASH_OK);
    CHECK_EQ(n, again);
    free(text);
    CHECK_EQ(flash_grammar_from_schema(NULL, 0, NULL, 0, &n, NULL), FLASH_E_ARGUMENT);
}

/* --- sessions -------------------------------------------------------------------------------- */

static flash_status finish(flash_session *s, char *text)
{
    flash_piece piece;
    flash_status st;
    size_t n = 0;
    while ((st = flash_session_next(s, NULL, &piece)) == FLASH_OK) {
        memcpy(text + n, piece.text, piece.bytes);
        n += piece.bytes;
    }
    text[n] = 0;
    return st;
}

typedef struct bytes {
    uint8_t p[1 << 20];
    size_t n;
} bytes;

static int put(void *user, const void *data, size_t n)
{
    bytes *to = user;
    if (n > sizeof to->p - to->n) return 1;
    memcpy(to->p + to->n, data, n);
    to->n += n;
    return 0;
}

/* In the middle of a text, a fork of a session and a session restored from its saved state go on
   with the same text as the session itself. */
static void test_states(const flash_model *m)
{
    static bytes file;
    flash_grammar *g = grammar(m, "root ::= [a-f]{6} [0-9]{3}");
    flash_sampler sp = {0};
    flash_piece piece;
    flash_session *copy;
    flash_source source = {0};
    char text[4000], again[4000];
    SECTION("states in the middle of a text");
    sp.grammar = g;
    sp.temperature = 1;
    for (int after = 0; after < 9; after++) {
        static const int32_t prompt[] = {50, 51};
        flash_session *s = session(m, &sp, 128), *other = session(m, &sp, 128);
        CHECK_EQ(flash_session_feed(s, prompt, 2), FLASH_OK);
        for (int i = 0; i < after; i++) CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
        CHECK_EQ(flash_session_fork(&copy, s), FLASH_OK);
        file.n = 0;
        CHECK_EQ(flash_session_save(s, put, &file), FLASH_OK);
        source.data = file.p;
        source.bytes = file.n;
        CHECK_EQ(flash_session_restore(other, &source, NULL), FLASH_OK);
        CHECK_EQ(finish(s, text), FLASH_END_OF_TEXT);
        CHECK_EQ(strlen(text) + (size_t)after, 9);
        CHECK_EQ(finish(copy, again), FLASH_END_OF_TEXT);
        CHECK(!strcmp(again, text));
        CHECK_EQ(finish(other, again), FLASH_END_OF_TEXT);
        CHECK(!strcmp(again, text));
        flash_session_free(s);
        flash_session_free(copy);
        flash_session_free(other);
    }
    flash_grammar_free(g);
}

static void test_sessions(const flash_model *m)
{
    flash_grammar *g = grammar(m, "root ::= [a-f]{6} [0-9]{3}");
    flash_sampler sp = {0};
    flash_piece piece;
    char text[4000], again[4000];
    int ends;
    SECTION("sessions");
    sp.grammar = g;
    sp.temperature = 1;
    flash_session *s = session(m, &sp, 128);
    CHECK_EQ(finish(s, text), FLASH_END_OF_TEXT);
    CHECK_EQ(strlen(text), 9);
    CHECK_EQ(reads(g, text, 9, &ends), 9);

    /* After a truncation inside the text, the grammar goes on from the part that is left. */
    for (int keep = 1; keep < 9; keep++) {
        flash_session_reset(s);
        static const int32_t begin[] = {50};
        CHECK_EQ(flash_session_feed(s, begin, 1), FLASH_OK);
        for (int i = 0; i < 8; i++) CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
        CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
        CHECK_EQ(flash_session_truncate(s, keep), FLASH_OK);
        int32_t last = flash_session_tokens(s)[keep - 1];
        CHECK_EQ(flash_session_truncate(s, keep - 1), FLASH_OK);
        if (keep - 1 == 0) { /* the prompt is fed again: a new text begins */
            CHECK_EQ(flash_session_feed(s, &last, 1), FLASH_OK);
            CHECK_EQ(finish(s, again), FLASH_END_OF_TEXT);
            CHECK(accepts(g, again));
            continue;
        }
        size_t n = 0;
        if (keep > 2) {
            CHECK_EQ(flash_detokenize(m, flash_session_tokens(s) + 1, (size_t)keep - 2,
                                      FLASH_TEXT_CONTINUE, again, sizeof again, &n),
                     FLASH_OK);
        }
        s->sampled = last; /* as if flash_session_sample had returned it */
        CHECK_EQ(flash_session_feed(s, &last, 1), FLASH_OK);
        flash__reading *t = flash__text_state(s);
        CHECK_EQ(t->stuck, 0);
        CHECK_EQ(t->at, keep);
        CHECK_EQ(t->place[t->now].ends, keep == 10);
    }

    /* A prompt ends one text and begins the next. */
    flash_session_reset(s);
    static const int32_t prompt[] = {50, 51, 52};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(flash_session_feed(s, prompt, 3), FLASH_OK);
        CHECK_EQ(finish(s, text), FLASH_END_OF_TEXT);
        CHECK(accepts(g, text));
        flash_session_feed_text(s, " a", 0);
        CHECK_EQ(finish(s, text), FLASH_END_OF_TEXT);
        CHECK(accepts(g, text));
    }

    /* The grammar can be replaced, but not added to a session that was created without one. */
    flash_grammar *other = NULL;
    flash_grammar_desc d = {0};
    d.text = "root ::= \"(\" root \")\" | \"x\"";
    d.bytes = strlen(d.text);
    d.share = g;
    CHECK_EQ(flash_grammar_create(&other, m, &d, NULL), FLASH_OK);
    CHECK(flash_grammar_memory(m, &d, NULL) < 2000);
    flash_session_reset(s);
    sp.grammar = other;
    CHECK_EQ(flash_session_sampler(s, &sp), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, prompt, 1), FLASH_OK);
    CHECK_EQ(finish(s, text), FLASH_END_OF_TEXT);
    CHECK(accepts(other, text));
    flash_session_free(s);
    sp.grammar = NULL;
    s = session(m, &sp, 128);
    sp.grammar = g;
    CHECK_EQ(flash_session_sampler(s, &sp), FLASH_E_ARGUMENT);
    flash_session_free(s);
    flash_grammar_free(other);

    /* A token that is not allowed, fed as if it had been sampled, gives the error in every call. */
    flash_grammar *never = grammar(m, "root ::= \"ab\" [\\u4e00-\\u4e0f]");
    sp.grammar = never;
    s = session(m, &sp, 64);
    s->sampled = prompt[2];
    CHECK_EQ(flash_session_feed(s, prompt + 2, 1), FLASH_OK);
    CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_E_GRAMMAR);
    CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_E_GRAMMAR);
    CHECK_EQ(flash_session_sample(s), -1);
    flash_session_free(s);
    flash_grammar_free(never);

    /* With ignore_end, the text ends where the grammar does, without an end-of-text token. */
    sp.ignore_end = 1;
    sp.grammar = g;
    s = session(m, &sp, 64);
    CHECK_EQ(finish(s, text), FLASH_END_OF_TEXT);
    CHECK(accepts(g, text));
    flash_session_free(s);
    flash_grammar_free(g);

    SECTION("arguments");
    flash_grammar_desc none = {0};
    flash_error err;
    none.text = "root ::= \"a\"";
    none.bytes = strlen(none.text);
    CHECK_EQ(flash_grammar_create(NULL, m, &none, &err), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_grammar_create(&g, NULL, &none, &err), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_grammar_create(&g, m, NULL, &err), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_grammar_memory(NULL, &none, &err), 0);
    flash_grammar_free(NULL);
    g = grammar(m, none.text);
    flash_session_desc sd = {0};
    sd.sampler.grammar = g;
    mk_options o = {0};
    uint8_t *file;
    flash_model *else_ = load(mk_llama(&o), &file);
    CHECK_EQ(flash_session_create(&s, else_, &sd), FLASH_E_ARGUMENT);
    none.share = g;
    flash_grammar *h;
    CHECK_EQ(flash_grammar_create(&h, else_, &none, NULL), FLASH_E_ARGUMENT);
    flash_model_free(else_);
    free(file);
    flash_grammar_free(g);
}

/* --- limits ---------------------------------------------------------------------------------- */

static void test_limits(const flash_model *m)
{
    SECTION("limits");
    /* Brackets can be nested as deeply as the pool allows, and no deeper. */
    flash_grammar *g = grammar(m, "root ::= \"(\" root \")\" | \"x\"");
    char *text = (char *)mk_alloc(NULL, 200001);
    int ends;
    memset(text, '(', 200000);
    size_t deep = reads(g, text, 200000, &ends);
    CHECK(deep > 4000 && deep < 4100);
    memset(text + deep - 1, ')', deep - 1);
    text[deep - 1] = 'x';
    memset(text + deep, ')', deep);
    CHECK_EQ(reads(g, text, 2 * deep - 1, &ends), 2 * deep - 1);
    CHECK(ends);
    /* At every depth some token is allowed, and a refresh does not change the mask. */
    flash__reading *t = reading(g);
    for (size_t i = 0; i < 4000; i++) {
        int to = flash__advance(t, t->now, '(');
        if (to == -2) {
            flash__refresh(t);
            to = flash__advance(t, t->now, '(');
        }
        if (to < 0) break;
        t->now = to;
        if (i % 500 == 499 || i > 3990) {
            uint32_t before[64], *after;
            memcpy(before, flash__mask(t, m), t->words * 4);
            flash__refresh(t);
            after = (uint32_t *)(void *)flash__mask(t, m);
            CHECK(memcmp(before, after, t->words * 4) == 0);
            int any_left = 0;
            for (size_t k = 0; k < t->words; k++) any_left |= after[k] != 0;
            CHECK(any_left);
        }
    }
    free(t);
    flash_grammar_free(g);
    /* The pool is refreshed now and then, which drops unused frames: brackets still must close in
       the order in which they were opened. */
    g = grammar(m,
                "root ::= a*\na ::= \"(\" (a \"!\")* \")\" | \"[\" (a \"?\")* \"]\""
                " | \"{\" (a \".\")* \"}\"");
    const char *nest = "({[({[].}!)?{().}?].().}!{}!)", *p = nest;
    t = reading(g);
    for (; *p && t->now >= 0; p++) {
        flash__mask(t, m);
        if ((p - nest) % 4 == 3) flash__refresh(t);
        for (const char *wrong = ")]}!?."; *wrong; wrong++) {
            int good = flash__advance(t, t->now, (uint8_t)*wrong) >= 0;
            char next[64];
            memcpy(next, nest, (size_t)(p - nest));
            next[p - nest] = *wrong;
            CHECK_EQ(reads(g, next, (size_t)(p - nest) + 1, &ends) == (size_t)(p - nest) + 1, good);
        }
        t->now = flash__advance(t, t->now, (uint8_t)*p);
    }
    CHECK(t->now >= 0 && t->place[t->now].ends);
    free(t);
    flash_grammar_free(g);
    /* The number of ways to read the text doubles with every character. */
    g = grammar(m,
                "root ::= a\na ::= \"x\" a b | \"x\" a c | \"x\"\nb ::= \"y\"\n"
                "c ::= \"y\" | \"z\"");
    memset(text, 'x', 1000);
    size_t wide = reads(g, text, 1000, &ends);
    CHECK(wide >= 4 && wide < 12);
    flash_grammar_free(g);
    g = grammar(m,
                "root ::= (\"a\"? \"a\"? \"a\"? \"a\"? \"a\"? "
                "\"a\"? \"a\"? \"a\"? \"a\"? \"a\"?){0,10}");
    memset(text, 'a', 1000);
    CHECK_EQ(reads(g, text, 1000, &ends), 100);
    flash_grammar_free(g);
    free(text);
}

/* --- memory ---------------------------------------------------------------------------------- */

static void test_memory(const flash_model *m)
{
    flash_grammar_desc d = {0};
    flash_grammar *g;
    flash_session_desc sd = {0};
    flash_session *s;
    mk_heap heap = {0};
    SECTION("memory");
    d.text = flash_grammar_json();
    d.bytes = strlen(d.text);
    d.allocator.acquire = mk_heap_acquire;
    d.allocator.release = mk_heap_release;
    d.allocator.user = &heap;
    heap.fail_at = 0;
    CHECK_EQ(flash_grammar_create(&g, m, &d, NULL), FLASH_E_MEMORY);
    CHECK(!g);
    heap.fail_at = -1;
    CHECK_EQ(flash_grammar_create(&g, m, &d, NULL), FLASH_OK);
    CHECK_EQ(heap.bytes, flash_grammar_memory(m, &d, NULL));
    CHECK_EQ(heap.count, 2);
    sd.host.allocator = d.allocator;
    sd.n_ctx = 64;
    sd.sampler.grammar = g;
    sd.sampler.temperature = 1;
    size_t before = heap.bytes;
    heap.fail_at = heap.count;
    CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_E_MEMORY);
    heap.fail_at = -1;
    CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK);
    CHECK_EQ(heap.bytes - before, flash_session_memory(m, &sd));
    long count = heap.count;
    char text[4000];
    finish(s, text);
    CHECK_EQ(heap.count, count);
    flash_session_free(s);
    sd.sampler.grammar = NULL;
    CHECK(flash_session_memory(m, &sd) + 100000 < heap.total);
    flash_grammar_free(g);
    d.text = "root ::= root";
    d.bytes = strlen(d.text);
    CHECK_EQ(flash_grammar_create(&g, m, &d, NULL), FLASH_E_FORMAT);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.errors, 0);
}

int main(void)
{
    mk_options o = {0}, b = {0};
    uint8_t *file, *bpe_file;
    int quick = getenv("FLASH_QUICK") != NULL;
    flash_model *m = load(mk_llama(&o), &file), *bpe;
    flash_model_desc d = {0};
    flash_model *tale = NULL;
    b.bpe = 1;
    b.untied = 1;
    b.seed = 3;
    bpe = load(mk_llama(&b), &bpe_file);
    any = m;
    test_dialect();
    test_many_choices();
    test_refused();
    test_suite();
    test_schemas();
    test_sessions(m);
    test_states(m);
    test_sessions(bpe);
    test_limits(m);
    test_memory(m);
    test_masks(m, quick ? 8 : 20);
    test_masks(bpe, quick ? 8 : 20);
    test_samples(m, quick ? 20 : 300);
    test_samples(bpe, quick ? 20 : 300);
    d.source.path = "examples/models/tale.gguf";
    CHECK_EQ(flash_model_load(&tale, &d, NULL), FLASH_OK);
    test_samples(tale, quick ? 20 : 400);
    flash_model_free(tale);
    flash_model_free(bpe);
    flash_model_free(m);
    free(bpe_file);
    free(file);
    return test_done();
}
