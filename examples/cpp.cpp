/* cpp.cpp - use from C++11: objects that free themselves, errors as exceptions, text as strings.
   build    c++ -std=c++11 -O2 -I. examples/cpp.cpp -o build/cpp -lm
   run      build/cpp model.gguf "Once upon a time"
   expect   the continuation, until the model ends the text or the context is full */
#define FLASH_RUNTIME_IMPLEMENTATION
#include "flash.h"
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

/* A wrapper of the C interface. Copy it, and leave out what you do not need. */
namespace flash
{

struct error : std::runtime_error {
    flash_status status;
    error(flash_status s, const std::string &text) : std::runtime_error(text), status(s) {}
};

inline flash_status check(flash_status s) /* throws on an error: errors are below 0 */
{
    if (s < 0) throw error(s, flash_status_text(s));
    return s;
}

class model
{ /* threads may share it; it must outlive its sessions */
    std::unique_ptr<flash_model, void (*)(flash_model *)> p{nullptr, flash_model_free};

  public:
    explicit model(const flash_model_desc &desc)
    {
        flash_model *m;
        flash_error e;
        flash_status s = flash_model_load(&m, &desc, &e);
        if (s) throw error(s, e.text);
        p.reset(m);
    }
    const flash_model *get() const { return p.get(); }
    const flash_arch &arch() const { return *flash_model_arch(p.get()); }
};

class session
{ /* used by one thread at a time; can be moved */
    std::unique_ptr<flash_session, void (*)(flash_session *)> p{nullptr, flash_session_free};

  public:
    explicit session(const model &m, const flash_session_desc &desc = flash_session_desc())
    {
        flash_session *s;
        check(flash_session_create(&s, m.get(), &desc));
        p.reset(s);
    }
    flash_session *get() const { return p.get(); }
    void feed(const std::string &text) { check(flash_session_feed_text(get(), text.c_str(), 0)); }
    /* Generates a token and appends its text. Returns FLASH_OK, FLASH_MORE (the budget is spent),
       FLASH_END_OF_TEXT or FLASH_E_RANGE (the context is full); throws on other errors. */
    flash_status next(std::string &text, const flash_budget *budget = nullptr)
    {
        flash_piece piece;
        flash_status s = flash_session_next(get(), budget, &piece);
        if (!s) text.append(piece.text, piece.bytes);
        return s == FLASH_E_RANGE ? s : check(s);
    }
};

} // namespace flash

int main(int argc, char **argv)
try {
    flash_model_desc desc = flash_model_desc();
    desc.source.path = argc > 1 ? argv[1] : "model.gguf";
    flash::model model(desc);
    flash::session session(model);
    session.feed(argc > 2 ? argv[2] : "Once upon a time");
    for (std::string text; !session.next(text); text.clear()) std::cout << text << std::flush;
    std::cout << std::endl;
    return 0;
} catch (const std::exception &e) {
    std::cerr << "cpp: " << e.what() << std::endl;
    return 1;
}
