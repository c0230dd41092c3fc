//! What is recognised in texts, against messages written for these tests: every name and number is invented.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use sms_broadcaster::code::{CodeEvidence, Recognised, Recogniser, ServiceEvidence};

/// Reading the lexicon takes far longer than reading a text.
static RECOGNISER: LazyLock<Recogniser> = LazyLock::new(Recogniser::new);

fn recognise(text: &str) -> Recognised {
    RECOGNISER.recognise(text, None)
}

fn code(text: &str) -> Option<String> {
    recognise(text).code.map(|code| code.expose().to_owned())
}

#[track_caller]
fn assert_code(text: &str, expected: &str) {
    assert_eq!(code(text).as_deref(), Some(expected), "{text}");
}

#[track_caller]
fn assert_none(text: &str) {
    assert_eq!(code(text), None, "{text}");
}

/// Letters and digits alone: how a code is compared.
fn comparable(code: &str) -> String {
    let digit = |c: char| match c {
        '\u{660}'..='\u{669}' => char::from_digit(u32::from(c) - 0x660, 10),
        '\u{6f0}'..='\u{6f9}' => char::from_digit(u32::from(c) - 0x6f0, 10),
        '\u{966}'..='\u{96f}' => char::from_digit(u32::from(c) - 0x966, 10),
        '\u{9e6}'..='\u{9ef}' => char::from_digit(u32::from(c) - 0x9e6, 10),
        '\u{ff10}'..='\u{ff19}' => char::from_digit(u32::from(c) - 0xff10, 10),
        _ => None,
    };
    code.chars().map(|c| digit(c).unwrap_or(c)).filter(|c| c.is_alphanumeric()).collect()
}

struct Labelled {
    line: usize,
    language: &'static str,
    code: Option<String>,
    service: Option<&'static str>,
    text: String,
}

fn messages() -> Vec<Labelled> {
    let lines = include_str!("recognition/messages.tsv").lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let field = |text: &'static str| Some(text).filter(|text| *text != "-");
    lines
        .map(|(at, line)| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [language, code, service, text] = fields[..] else { panic!("line {}: four fields", at + 1) };
            Labelled {
                line: at + 1,
                language,
                code: field(code).map(comparable),
                service: field(service),
                text: text.replace('⏎', "\n"),
            }
        })
        .collect()
}

#[test]
fn every_message_of_the_collection_is_read_right() {
    let mut wrong = Vec::new();
    for message in messages() {
        let found = RECOGNISER.recognise(&message.text, None);
        let code = found.code.as_ref().map(|code| comparable(code.expose()));
        if code != message.code {
            wrong.push(format!("line {}: {code:?} in {}", message.line, message.text));
        }
        // Without a code nobody asks whose it is.
        if message.code.is_some() && found.service.as_deref() != message.service {
            wrong.push(format!("line {}: {:?} sent {}", message.line, found.service, message.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_collection_has_codes_and_other_texts_in_many_languages() {
    let languages = |codes: bool| -> BTreeSet<&str> {
        messages().iter().filter(|one| one.code.is_some() == codes).map(|one| one.language).collect()
    };
    assert!(languages(true).len() >= 40, "{:?}", languages(true));
    assert!(languages(false).len() >= 20, "{:?}", languages(false));
}

// One test for each way in which extractors are known to fail.

#[test]
fn codes_touch_letters_of_scripts_without_blanks() {
    assert_code("验证码550182，请勿泄露", "550182");
    assert_code("認証番号は550182です", "550182");
    assert_code("인증번호550182입니다", "550182");
    assert_code("รหัสยืนยัน550182ใช้ได้5นาที", "550182");
}

#[test]
fn a_full_width_comma_glues_no_numbers_together() {
    assert_code("验证码：０５５０１８，２分钟内有效", "055018");
    assert_code("验证码:055018,2分钟内有效", "055018");
}

#[test]
fn an_account_a_card_or_an_amount_nearer_than_the_code_is_not_it() {
    assert_code("OTP for card XX4471 is 550182", "550182");
    assert_code("Ma giao dich 7781, ma OTP 550182, so tien 250000", "550182");
    assert_code("账号B1234567正在登录，验证码为550182", "550182");
    assert_code("Your OTP for the payment of INR 12500 to 88120457 is 550182", "550182");
}

#[test]
fn a_keyword_in_a_warning_makes_no_code() {
    assert_none("USD 512.30 debited from account 44718820. Never share your password or OTP with anyone");
    assert_code("Never share this code: 550182", "550182");
}

#[test]
fn a_word_behind_a_colon_is_no_code() {
    assert_none("Your code: PLEASE CALL US");
    assert_none("Geben Sie den Code ein: BITTE nicht weitergeben");
    assert_code("Fenwick verification code: QWZRTK", "QWZRTK");
}

#[test]
fn vouchers_and_parcels_have_codes_of_their_own() {
    assert_none("Claim your prize with code 550182 today!");
    assert_none("Your discount code is 550182");
    assert_none("包裹已到驿站，取件码5501");
    assert_none("Use code EXTRA40 for 40% off everything");
}

#[test]
fn links_are_neither_read_for_words_nor_for_numbers() {
    assert_none("Rate us: https://shop.example/rate?code=550182");
    assert_none("See www.shop.example/otp/550182");
    assert_code("Pebble code 550182. Or open pebble.example/771203", "550182");
}

#[test]
fn odd_shapes_are_codes_too() {
    for (text, expected) in [
        ("Your code is 12-34-56", "123456"),
        ("Your code is 550-182", "550182"),
        ("Your code is 5501-8200", "55018200"),
        ("Your code is 550 182", "550182"),
        ("Your OTP is 5501820", "5501820"),
        ("رمز یکبار مصرف: 5501820471", "5501820471"),
        ("TAN 4 k 7 q x 2", "4k7qx2"),
        ("TAN: 4 k 7 q x 2", "4k7qx2"),
        ("Your code is ５５０１８２", "550182"),
        ("کد تایید: ۵۵۰۱۸۲", "550182"),
        ("Your code is 5\u{200d}5\u{200d}0\u{200d}1\u{200d}8\u{200d}2", "550182"),
        ("Your code is G-550182", "550182"),
        ("Your code is AB3-9XZ", "AB3-9XZ"),
        ("Your code is Kx7Qa2", "Kx7Qa2"),
        ("Kodunuz: 55018 B021", "55018"),
    ] {
        assert_code(text, expected);
    }
    assert_code("<#> Your code is 550182\nkB3/xQ9wLpZ", "550182");
}

#[test]
fn what_stands_in_brackets_takes_a_keyword_no_further_away() {
    assert_code(
        "TAN f\u{fc}r den Auftrag (Betrag 89,00 EUR, an K. Frei, IBAN-Endung 4471, vom 24.11.2026): 550182",
        "550182",
    );
}

#[test]
fn texts_escaped_for_a_page_are_read_as_they_were_meant() {
    assert_code("&#x27;550182&#39; is your code &amp; expires in 5 min", "550182");
    assert_none("Tom &amp; I; &#; &#xzz; &nope; & more at 550182 Main St");
}

#[test]
fn marks_of_emphasis_and_an_equals_sign_belong_to_no_code() {
    assert_code("*550182* is your one time passcode", "550182");
    assert_code("OTP=550182 for your payment", "550182");
    assert_none("Card *5501 debited 20.00; balance *5501*82");
    assert_none("OTP page: pay?id=550182");
}

#[test]
fn a_number_typed_into_a_telephone_is_no_code() {
    assert_none("Dial 020 7946 0991 and enter 88213# when prompted");
    assert_none("Your gate code for tonight is 7714#");
}

#[test]
fn the_number_that_a_warning_ends_with_is_what_it_warns_of() {
    assert_code("Do not share this code with anyone. 550182", "550182");
    assert_none("Do not share your code with anyone. Ref 550182, amount 4471.00");
}

#[test]
fn a_receipt_has_an_approval_and_no_code() {
    assert_none("Оплата 250.00 UAH. Картка *4471. Залишок 1820.55 UAH. Код авторизації 550182");
    assert_code("Authorization code 550182 for your payment of 250.00 EUR. Do not share it", "550182");
}

#[test]
fn a_currency_that_is_also_a_little_word_makes_no_amount_of_a_code() {
    assert_code("Bruk 77120 som engangskode", "77120");
    assert_none("Balance 77120 som");
}

#[test]
fn the_code_may_come_before_its_keyword_or_far_behind_it() {
    assert_code("550182 is your code", "550182");
    assert_code("550182短信登录验证码", "550182");
    assert_code(
        "Your one-time password to confirm the transfer to your own savings account at our bank is 550182",
        "550182",
    );
    assert_code(
        "We received your request.\nTo go on, enter the code in the app.\n\n550182\n\nThank you",
        "550182",
    );
}

#[test]
fn words_are_known_without_their_accents() {
    for text in
        ["Su codigo de verificacion es 550182", "Dogrulama kodunuz 550182", "Ma xac thuc cua ban la 550182"]
    {
        assert_code(text, "550182");
    }
}

#[test]
fn marks_of_carriers_are_neither_service_nor_code() {
    for text in
        ["[Web발신] [솔길] 인증번호 550182", "RM0.00 솔길: code 550182", "<#> [#] [솔길] 550182 is your code"]
    {
        let found = recognise(text);
        assert_eq!(found.service.as_deref(), Some("솔길"), "{text}");
        assert_code(text, "550182");
    }
}

#[test]
fn of_two_codes_the_valid_one_is_taken() {
    assert_code("Your old code 111742 is no longer valid. The new code is 550182", "550182");
    assert_code("Transaction 55821093: confirm with code 550182", "550182");
}

#[test]
fn years_durations_and_times_are_no_codes() {
    assert_none("Code of conduct 2027: please read it within 3 days");
    assert_none("Your code expires in 10 minutes");
    assert_none("Your verification code will be sent at 14:20 on 12.03.2027");
}

#[test]
fn a_domain_bound_line_is_believed_before_anything_else() {
    for (text, host) in [
        ("Your code is 111111.\n\n@tarn.example #550182", "tarn.example"),
        ("@login.tarn.example #550182", "login.tarn.example"),
        ("550182 is your code. @tarn.example #550182", "tarn.example"),
        ("x\n@tarn.example #550182 %pay.example", "tarn.example"),
        ("x\r\n@TARN.example #550182\r\n", "tarn.example"),
        ("x\n\u{200e}@tarn.example #550182", "tarn.example"),
    ] {
        let found = recognise(text);
        assert_eq!(found.code.as_ref().map(|code| code.expose()), Some("550182"), "{text}");
        assert_eq!(found.domain.as_deref(), Some(host), "{text}");
        assert_eq!(found.code_evidence, Some(CodeEvidence::DomainLine));
        assert!(found.confidence > 0.99);
    }
    for text in [
        "mail me@tarn.example #550182",
        "@tarn #550182",
        "@tarn.example  #550182",
        "@tarn.example #",
        "@-a.example #1",
    ] {
        assert_eq!(recognise(text).domain, None, "{text}");
    }
}

#[test]
fn the_life_of_a_code_is_read_in_many_languages() {
    for (text, seconds) in [
        ("Your code is 550182, valid for 10 minutes", 600),
        ("550182 is your code. It expires in 30 seconds.", 30),
        ("Code 550182 (valid 1 hour)", 3600),
        ("Login code 550182 is valid for five minutes", 300),
        ("Ihr Code 550182 ist 15 Minuten gültig", 900),
        ("Votre code 550182 expire dans 10 min", 600),
        ("Tu código 550182 vence en 3 minutos", 180),
        ("Код 550182 действителен 5 минут", 300),
        ("验证码550182，5分钟内有效", 300),
        ("认证码550182，有效期十五分钟", 900),
        ("認証コード 550182 有効期限は10分です", 600),
        ("인증번호 550182 유효시간 3분", 180),
        ("رمز التحقق 550182 صالح لمدة 5 دقائق", 300),
        ("کد 550182 تا 2 دقیقه اعتبار دارد", 120),
        ("Kodunuz 550182, 3 dk geçerlidir", 180),
        ("Ma OTP 550182 co hieu luc trong 2 phut", 120),
    ] {
        assert_eq!(recognise(text).expires_in, Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in [
        "Your code is 550182",
        "Code 550182. Call 0800 555 0142 within office hours",
        "Code 550182 expires at 11:44 PM",
        "Code 550182 is valid for 900 days",
        "Code 550182 is valid for 0 minutes",
    ] {
        assert_eq!(recognise(text).expires_in, None, "{text}");
    }
}

#[test]
fn a_service_is_told_by_sign_prefix_phrase_signature_name_host_or_sender() {
    use ServiceEvidence as By;
    for (text, sender, service, by) in [
        ("[Fenwick] 550182 is your code", None, "Fenwick", By::Sign),
        ("【松果】验证码550182", None, "松果", By::Sign),
        ("Fenwick: your code is 550182", None, "Fenwick", By::Prefix),
        ("Fenwick\nYour code\n550182", None, "Fenwick", By::Prefix),
        ("Your Fenwick code is 550182", None, "Fenwick", By::Phrase),
        ("Use 550182 to log in to your Fenwick account", None, "Fenwick", By::Phrase),
        ("验证码550182，5分钟内有效。【松果】", None, "松果", By::Signature),
        ("Your code is 550182 - Fenwick", None, "Fenwick", By::Signature),
        ("550182 is your code.\n@login.fenwick.example #550182", None, "login.fenwick.example", By::Domain),
        ("Your code is 550182", Some("FENWICK"), "FENWICK", By::Sender),
        ("Your code is 550182", Some("AD-FENWCK-S"), "FENWCK", By::Sender),
        ("Is it you on GitHub? 550182 is the code", None, "GitHub", By::Brand),
    ] {
        let found = RECOGNISER.recognise(text, sender);
        assert_eq!(found.service.as_deref(), Some(service), "{text}");
        assert_eq!(found.service_evidence, Some(by), "{text}");
    }
    for (text, sender) in [
        ("Your code is 550182", None),
        ("Your code is 550182", Some("+15556667777")),
        ("Your code is 550182", Some("72404")),
        ("Your code is 550182", Some("VERIFY")),
        ("Use your online account code 550182", None),
    ] {
        assert_eq!(RECOGNISER.recognise(text, sender).service, None, "{text}");
    }
}

#[test]
fn a_code_does_not_print() {
    let found = recognise("Your code is 550182");
    assert!(!format!("{found:?}").contains("550182"));
}

#[test]
fn masking_leaves_the_words_and_no_code() {
    for (text, masked) in [
        ("Your Fenwick code is 550182.", "Your Fenwick code is ••••"),
        ("code: 550 182, thanks", "code: ••••, thanks"),
        ("کد تایید: ۵۵۰۱۸۲", "کد تایید: ••••"),
        ("TAN 4 k 7 q x 2 now", "TAN •••• now"),
        ("Use KQXZWP to log in", "Use •••• to log in"),
        ("x\n@tarn.example #abcdef", "x\n••••"),
        ("see https://a.example/x?t=secret", "see ••••"),
    ] {
        let shown = RECOGNISER.masked(text);
        assert_eq!(shown.trim_end_matches('.'), masked.trim_end_matches('.'), "{text}");
    }
}

#[test]
fn overlong_and_hostile_texts_are_read_at_their_ends() {
    let filler = "lorem ipsum dolor ".repeat(8_000);
    assert_code(&format!("{filler}\nYour code is 550182"), "550182");
    assert_code(&format!("Your code is 550182\n{filler}"), "550182");
    for part in [
        "1",
        "1 ",
        "12 ",
        "123456 ",
        "code 1234 is ",
        "@a.b #",
        "1-",
        "a.",
        "【",
        "验证码",
        "\u{301}",
        "\u{200d}1",
        "OTP: ",
        "x.com/",
        "G-1 ",
    ] {
        let text = part.repeat((64 << 10) / part.len());
        let _ = recognise(&text);
        let masked = RECOGNISER.masked(&text);
        assert!(!masked.contains(|c: char| c.is_ascii_digit()), "{part:?}");
    }
}

fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,12}",
        "[0-9]{1,10}",
        "[a-zA-Z0-9]{3,9}",
        prop::sample::select(vec![
            "code ",
            "is ",
            ": ",
            "\n",
            "OTP ",
            "验证码",
            "，",
            "【",
            "】",
            "@a.example #",
            "G-",
            "-",
            " ",
            "кода ",
            "رمز ",
            "https://a.b/",
            "$",
            "10 min",
            "\u{200f}",
            "e\u{301}",
            "é",
            "İ",
            "ﬁ",
            "㈱",
            "5️⃣",
            "١٢٣",
            "valid for ",
            "- ",
            "Your ",
            "[",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn a_code_of_letters_is_masked_wherever_it_stands() {
    let masked = RECOGNISER.masked("Enter QWERTZ now.\n@a.example #QWERTZ");
    assert!(
        !masked.contains("QWERTZ") && masked.starts_with("Enter ") && masked.contains(" now."),
        "{masked}"
    );
    assert!(!RECOGNISER.masked("@a.example #code code ").contains("code"));
}

#[test]
fn a_code_never_has_a_letter_that_the_text_does_not() {
    assert_eq!(super::recognition::code("Your code is A\u{f0}4711"), None);
    assert_eq!(super::recognition::code("Your code is AD4711"), Some("AD4711".to_owned()));
    // Of words it makes no difference.
    assert_eq!(
        super::recognition::code("Sta\u{f0}festingark\u{f3}\u{f0}i: 471193"),
        Some("471193".to_owned())
    );
}

#[test]
fn a_full_stop_of_several_bytes_ends_a_sentence_like_any_other() {
    for stop in ["\u{6d4}", "\u{964}", "\u{3002}", "."] {
        for bracket in ["\u{ff5f}", "\u{3010}", "(", ""] {
            // That it is read at all is what counts.
            let _ = RECOGNISER.recognise(&format!("{stop}{bracket}OTP 000"), None);
            let _ = RECOGNISER.recognise(&format!("Hello{stop} {bracket}Quill OTP 471193"), None);
        }
    }
}

/// The characters of a text in the spelling that codes have.
fn spelled(text: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    text.nfkd()
        .filter_map(|c| c.to_digit(10).and_then(|d| char::from_digit(d, 10)).or(Some(c)))
        .collect::<String>()
        .to_lowercase()
}

proptest! {
    #[test]
    fn any_text_is_read_and_what_is_found_stands_in_it(text in any_text(), sender in prop::option::of("\\PC{0,16}")) {
            let found = RECOGNISER.recognise(&text, sender.as_deref());
        prop_assert!((0.0..=1.0).contains(&found.confidence));
        prop_assert_eq!(found.code.is_some(), found.confidence > 0.0);
        prop_assert_eq!(found.code.is_some(), found.code_evidence.is_some());
        prop_assert_eq!(found.service.is_some(), found.service_evidence.is_some());
        if let Some(code) = &found.code {
            let code = code.expose();
            prop_assert!(!code.is_empty() && code.len() <= 64);
            let all = spelled(&text);
            for c in code.chars().filter(char::is_ascii_alphabetic) {
                prop_assert!(all.contains(c.to_ascii_lowercase()), "{}", c);
            }
        }
        if let Some(service) = &found.service {
            prop_assert!(service.chars().count() <= 64 && !service.chars().any(char::is_control));
        }
    }

    #[test]
    fn a_masked_text_holds_no_digit_and_no_code(text in any_text()) {
            let masked = RECOGNISER.masked(&text);
        prop_assert!(!masked.chars().any(|c| c.is_numeric()), "{}", masked);
        if let Some(code) = RECOGNISER.recognise(&text, None).code {
            prop_assert!(!masked.contains(code.expose()), "{}", masked);
        }
    }

    #[test]
    fn a_code_is_found_as_it_was_put_in(code in "[1-9][0-9]{5}", blank in prop::sample::select(vec![" ", "  ", "\n", "\u{a0}"])) {
        let text = format!("Your code is{blank}{code}");
        prop_assert_eq!(super::recognition::code(&text), Some(code.clone()));
        let wide: String = code.chars().map(|c| char::from_u32(u32::from(c) - 0x30 + 0xff10).unwrap()).collect();
        prop_assert_eq!(super::recognition::code(&format!("Your code is {wide}{blank}")), Some(code));
    }
}
