//! What happens to every message and every delivery besides waiting for sockets and the store.
//!
//! `cargo bench --bench hot_paths`; a name behind `--` picks some.

mod fixtures;

use std::time::Duration;

use divan::{Bencher, black_box};
use fixtures::{FROM, TEXT, TOKEN, matching, message, rendering, verifying, webhook};
use sms_broadcaster::channel::http::{Answer, Ending};
use sms_broadcaster::channel::{slack, sms};
use sms_broadcaster::clock::Timestamp;
use sms_broadcaster::code::Recogniser;
use sms_broadcaster::delivery::{DestinationKeyer, Outcome, Reason, Recipient};
use sms_broadcaster::message::{InboundMessage, PhoneNumber};
use sms_broadcaster::retry::{Progress, RetryPolicy};

fn main() {
    divan::main();
}

mod ingress {
    use super::*;

    /// The signature is checked in every spelling worth trying, and the fields are read.
    #[divan::bench]
    fn verify(bencher: Bencher) {
        bencher.bench_local(verifying(None));
    }

    /// A request that nobody signed is turned away.
    #[divan::bench]
    fn refuse_a_forgery(bencher: Bencher) {
        bencher.bench_local(verifying(Some("AAAAAAAAAAAAAAAAAAAAAAAAAAA=")));
    }

    /// The form alone.
    #[divan::bench]
    fn parse(bencher: Bencher) {
        let (body, _) = webhook("SM0123456789abcdef0123456789abcdef", TEXT);
        bencher.bench_local(|| form_urlencoded::parse(black_box(&body)).into_owned().collect::<Vec<_>>());
    }

    #[divan::bench]
    fn message_to_payload(bencher: Bencher) {
        let message = message(FROM);
        bencher.bench_local(|| black_box(&message).to_payload());
    }
}

mod routing {
    use super::*;

    #[divan::bench]
    fn match_among_10_000(bencher: Bencher) {
        bencher.bench_local(matching());
    }

    #[divan::bench]
    fn destination_key(bencher: Bencher) {
        let recipient = Recipient::Sms { to: PhoneNumber::parse("+14443332222").expect("a number") };
        let keyer = DestinationKeyer::new(TOKEN.as_bytes());
        bencher.bench_local(|| keyer.key(black_box(&recipient)));
    }
}

mod delivery {
    use super::*;

    #[divan::bench]
    fn message_from_payload(bencher: Bencher) {
        let message = message(FROM);
        let payload = message.to_payload();
        bencher.bench_local(|| InboundMessage::from_payload(&message.id, black_box(&payload)).is_ok());
    }

    #[divan::bench(args = ["sms", "slack"])]
    fn render(bencher: Bencher, channel: &str) {
        bencher.bench_local(rendering(channel));
    }

    fn answer(status: u16, body: &str) -> Answer {
        let body = body.as_bytes().to_vec();
        Answer { status, retry_after: None, body, ending: Ending::Complete }
    }

    #[divan::bench(args = ["accepted", "refused"])]
    fn outcome_of_twilio(bencher: Bencher, what: &str) {
        let answer = match what {
            "accepted" => answer(201, "{\"sid\":\"SM1\",\"status\":\"queued\"}"),
            _ => answer(400, "{\"code\":21211,\"message\":\"Invalid 'To' Phone Number\",\"status\":400}"),
        };
        bencher.bench_local(|| sms::outcome(black_box(&answer)));
    }

    #[divan::bench(args = ["accepted", "refused"])]
    fn outcome_of_slack(bencher: Bencher, what: &str) {
        let answer = match what {
            "accepted" => answer(200, "ok"),
            _ => answer(404, "no_service"),
        };
        bencher.bench_local(|| slack::outcome(black_box(&answer)));
    }

    #[divan::bench]
    fn what_to_do_about_it(bencher: Bencher) {
        let policy = RetryPolicy::default();
        let now = Timestamp::from_millis(1_795_485_831_000);
        let progress = Progress { attempts: 2, pauses: 0, deadline: now.plus(Duration::from_secs(600)), now };
        let outcome = Outcome::Retry {
            reason: Reason::Server,
            status: Some(503),
            code: None,
            after: None,
            ambiguous: false,
        };
        bencher.bench_local(|| policy.decide(black_box(&outcome), &progress, 0.5));
    }
}

mod recognition {
    use super::*;

    fn recognising(text: &str) -> impl Fn() -> bool + '_ {
        let recogniser = Recogniser::new();
        move || recogniser.recognise(black_box(text), None).code.is_some()
    }

    /// A login code.
    #[divan::bench]
    fn a_code(bencher: Bencher) {
        bencher.bench_local(recognising(TEXT));
    }

    /// A payment with its amount, card, payee and warning.
    #[divan::bench]
    fn a_payment(bencher: Bencher) {
        let text = "Never share this OTP with anyone, including our staff. OTP for INR 4,999.00 at VELOX RETAIL \
                    on card XX8812 is 660142. Valid for 5 minutes. Not you? Call 1800 555 0199.";
        bencher.bench_local(recognising(text));
    }

    /// 64 KiB that were written to take long: each has to stay under 2 ms.
    #[divan::bench(args = ["otp 123456 is your code. ", "1 2 3 4 ", "验证码123456，", "code (1234) ", "@a.bc #1 ", "&#x27;"])]
    fn the_worst_64_kib(bencher: Bencher, part: &str) {
        let text = part.repeat((64 << 10) / part.len());
        bencher.bench_local(recognising(&text));
    }
}
