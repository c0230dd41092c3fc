//! The ingress through a real socket: every answer it gives, and what it has stored when it gives it.

mod site;
mod store;

use std::sync::Arc;
use std::time::Duration;

use site::{
    ACCOUNT, OUR_NUMBER, SENDER, Site, TEXT, encoded, form, get, post, post_with, sid, signature,
    twilio_settings, usual,
};
use sms_broadcaster::ingress::{Intake, LoopGuard};
use sms_broadcaster::message::InboundMessage;
use sms_broadcaster::queue::contract::{Acceptance, MAX_BATCH, Rate};
use sms_broadcaster::source::twilio::{Request, TwilioSource};
use sms_broadcaster::source::verified::Verified;
use store::{Mood, MoodyStore};

use crate::support::wire::{Answer, Wire, guarded};

fn assert_taken(answer: &Answer) {
    assert_eq!((answer.status, answer.body.as_str()), (200, "<Response/>"), "{answer:?}");
    // As plain text it would be sent to the sender.
    assert_eq!(answer.header("content-type"), Some("text/xml"));
}

#[tokio::test]
async fn a_message_is_taken_at_both_paths_by_both_methods_and_stored_before_the_answer() {
    let site = Site::start().await;
    for (number, request) in [
        (1, post("/", &usual(1))),
        (2, post("/twilio/sms", &usual(2))),
        (3, get("/", &usual(3), "", "")),
        (4, get("/twilio/sms", &usual(4), "", "")),
        (5, post("/twilio/sms?a=it's&b=%zz&From=no", &usual(5))),
        // The Host header has no say in what is signed.
        (6, post_with("/twilio/sms", &usual(6), "X-Forwarded-Host: other.example\r\n")),
        (
            7,
            post("http://other.example/twilio/sms", &usual(7)).replacen(
                &signature("http://other.example/twilio/sms", &usual(7)),
                &signature("/twilio/sms", &usual(7)),
                1,
            ),
        ),
    ] {
        assert_taken(&site.ask(request).await);
        assert!(site.store.has(&sid(number)).await, "{number}");
    }
    assert_eq!((site.counted("accepted"), site.store.counts().await), (7, (7, 0)));
}

#[tokio::test]
async fn every_kind_of_sender_and_an_empty_text_are_taken() {
    let site = Site::start().await;
    for (number, change) in [
        ("From", Some("72404")),
        ("From", Some("AMAZON")),
        ("From", Some("My Bank")),
        ("From", Some("whatsapp:+12225550123")),
        ("Body", Some("")),
        ("Body", None),
        ("Body", Some(" Grüße\r\n\u{202e}😀 ' & = % + ")),
        ("NewField", Some("of next year")),
    ]
    .into_iter()
    .enumerate()
    {
        let sid = sid(u32::try_from(number).unwrap());
        assert_taken(&site.ask(post("/", &form(&sid, change))).await);
        assert!(site.store.has(&sid).await, "{change:?}");
    }
    let mms = "MM00112233445566778899aabbccddeeff";
    assert_taken(&site.ask(post("/", &form(mms, ("", None)))).await);
}

#[tokio::test]
async fn a_message_seen_before_is_answered_the_same_and_changes_nothing() {
    let site = Site::start().await;
    for _ in 0..2 {
        assert_taken(&site.ask(post("/twilio/sms", &usual(1))).await);
    }
    assert_taken(&site.ask(get("/", &usual(1), "", "")).await);
    assert_eq!((site.counted("accepted"), site.counted("duplicate")), (1, 2));
    assert_eq!(site.store.counts().await, (1, 2));
}

#[tokio::test]
async fn of_the_same_message_many_times_at_once_one_is_stored() {
    let site = Arc::new(Site::start().await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let site = Arc::clone(&site);
        asking.spawn(async move { site.ask(post("/", &usual(1))).await });
    }
    asking.join_all().await.iter().for_each(assert_taken);
    assert_eq!((site.counted("accepted"), site.counted("duplicate")), (1, 19));
}

#[tokio::test]
async fn what_is_not_signed_by_twilio_is_403() {
    let site = Site::start().await;
    let good = post("/", &usual(1));
    let right = signature("/", &usual(1));
    let requests = [
        good.replace(&format!("X-Twilio-Signature: {right}\r\n"), ""),
        good.replace(&right, ""),
        good.replace(&right, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        good.replace(&right, &right[..27]),
        good.replace(&right, &signature("/twilio/sms", &usual(1))),
        good.replace("493817", "493818"),
        good.replace("application/x-www-form-urlencoded", "application/json"),
        good.replace("Content-Type: application/x-www-form-urlencoded\r\n", ""),
        // Signed as Twilio signs a JSON body, but for another one.
        "POST /?bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/json\r\nContent-Length: 3\r\n\r\n{ }"
            .to_owned(),
        get("/", &usual(1), "Content-Length: 6\r\n", "Body=x"),
        get("/", &usual(1), "", "").replace("493817", "493818"),
        "POST / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ];
    let count = requests.len() as u64;
    for request in requests {
        let answer = site.ask(&request).await;
        assert_eq!((answer.status, answer.body.as_str()), (403, "not signed by Twilio"), "{request}");
    }
    let mut bytes = good.replace(&right, "@").into_bytes();
    bytes.iter_mut().filter(|byte| **byte == b'@').for_each(|byte| *byte = 0xff);
    assert_eq!(site.ask(bytes).await.status, 403);
    assert_eq!((site.counted("bad_signature"), site.store.calls().len()), (count + 1, 0));
}

#[tokio::test]
async fn what_is_signed_but_no_message_of_ours_is_400_without_an_echo() {
    let site = Site::start().await;
    let other_account = "AC0123456789abcdef0123456789abcdee";
    let changes = [
        ("AccountSid", None, "AccountSid is missing"),
        ("AccountSid", Some(other_account), "AccountSid is not ours"),
        ("AccountSid", Some(""), "AccountSid is not ours"),
        ("MessageSid", None, "MessageSid is missing"),
        ("MessageSid", Some("SMecho"), "MessageSid is malformed"),
        ("From", None, "From is missing"),
        ("From", Some(""), "From is malformed"),
        ("From", Some("echo\u{7}"), "From is malformed"),
        ("From", Some(&"echo".repeat(17)), "From is malformed"),
        ("To", None, "To is missing"),
        ("To", Some("echo\n"), "To is malformed"),
    ];
    for (name, value, reason) in changes {
        for request in
            [post("/", &form(&sid(1), (name, value))), get("/", &form(&sid(1), (name, value)), "", "")]
        {
            let answer = site.ask(request).await;
            assert_eq!((answer.status, answer.body.as_str()), (400, reason), "{name} {value:?}");
        }
    }
    for name in ["AccountSid", "MessageSid", "From", "To", "Body"] {
        let mut twice = usual(1);
        twice.push((name.to_owned(), "echo".to_owned()));
        let answer = site.ask(post("/", &twice)).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.body.ends_with("contradicts itself"), "{}", answer.body);
    }
    // A body that is no form is proved by its hash, and says nothing that could be a message.
    let target = "/?bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let json = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Twilio-Signature: {}\r\n\
         Content-Length: 2\r\n\r\n{{}}",
        signature(target, &[])
    );
    assert_eq!(site.ask(json).await.status, 400);
    assert_eq!((site.counted("malformed"), site.store.calls().len()), (11 * 2 + 5 + 1, 0));
}

#[tokio::test]
async fn other_methods_are_405_and_other_paths_404() {
    let site = Site::start().await;
    for method in ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        for path in ["/", "/twilio/sms"] {
            let answer = site.ask(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")), "{method} {path}");
        }
    }
    for path in
        ["/twilio/sms/", "/twilio", "/twilio/", "//", "/twilio/SMS", "/metrics", "/readyz", "/in/x", "/%2e"]
    {
        let signed = site.ask(post(path, &usual(1))).await;
        assert_eq!(signed.status, 404, "{path}");
        assert_eq!(site.ask(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await.status, 404);
    }
    assert_eq!(site.store.calls().len(), 0);
}

#[tokio::test]
async fn what_is_no_http_is_400_and_nothing_else_suffers() {
    let site = Site::start().await;
    for garbage in [
        "\r\n\r\nhello\r\n\r\n",
        "POST\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let mut wire = Wire::connect(site.address).await;
        wire.send(garbage).await;
        // Some garbage is answered, some is hung up on.
        assert!(wire.answer().await.is_none_or(|answer| answer.status == 400), "{garbage:?}");
    }
    let broken = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(site.ask(broken).await.status, 400);
    assert_taken(&site.ask(post("/", &usual(1))).await);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_the_client_reads_it() {
    let site = Site::start().await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let large = "x".repeat(4 << 20);

    // Clients that send everything before they read, much more than sockets buffer: it is read to its end,
    // or else they might lose the answer.
    let mut announcing = Wire::connect(site.address).await;
    assert!(announcing.send(format!("{head}Content-Length: {}\r\n\r\n{large}", large.len())).await);
    let announced = announcing.answer().await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut chunking = Wire::connect(site.address).await;
    assert!(
        chunking.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(64))).await
    );
    let chunked = chunking.answer().await.unwrap();
    // Nothing but the announcement.
    let promised = site.ask(format!("{head}Content-Length: 99999999999\r\n\r\n")).await;
    // A client that asks first is not told to go on.
    let asked = site.ask(format!("{head}Content-Length: 4097\r\nExpect: 100-continue\r\n\r\n")).await;
    for answer in [announced, chunked, promised, asked] {
        assert_eq!((answer.status, answer.body.as_str()), (413, "the body is too large"));
        // Else a client would send its next request where nobody reads any more.
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(site.counted("too_large"), 4);

    // One that sends more than it announces is judged by what it announced, and what is left is no request.
    let mut liar = Wire::connect(site.address).await;
    liar.send(format!("{head}Content-Length: 10\r\n\r\n{}\r\n\r\n", &large[..9999])).await;
    assert_eq!(liar.answer().await.unwrap().status, 403);
    assert!(liar.answer().await.is_none_or(|answer| answer.status == 400));

    // Exactly as much as is allowed.
    let room = 4096 - encoded(&form(&sid(1), ("Body", Some("")))).len();
    let full = form(&sid(1), ("Body", Some(&"x".repeat(room))));
    assert_eq!(encoded(&full).len(), 4096);
    assert_taken(&site.ask(post("/", &full)).await);
    let over = form(&sid(2), ("Body", Some(&"x".repeat(room + 1))));
    assert_eq!(site.ask(post("/", &over)).await.status, 413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let site = Site::start_with(10, |settings| settings.patience.body = Duration::from_millis(50)).await;
    let mut slow = Wire::connect(site.address).await;
    slow.send(post("/", &usual(1)).trim_end_matches("FromCity=")).await;
    let answer = slow.answer().await.unwrap();
    assert_eq!((answer.status, site.counted("malformed"), site.store.calls().len()), (408, 1, 0));
}

fn rarely(burst: u32) -> Option<Rate> {
    Some(Rate { interval: Duration::from_secs(3600), burst })
}

#[tokio::test]
async fn over_its_rate_a_client_is_503_and_told_when_to_come_back() {
    let site = Site::start_with(10, |settings| settings.rate_per_ip = rarely(2)).await;
    assert_taken(&site.ask(post("/", &usual(1))).await);
    assert_eq!(site.ask("GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n").await.status, 404);
    for request in [
        post("/", &usual(2)),
        // Nobody believes a client that names another.
        post_with("/", &usual(2), "X-Forwarded-For: 203.0.113.9\r\n"),
        // The answer is read even by one that sends a lot first.
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n{}", "x".repeat(4_000_000)),
        "GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let answer = site.ask(request).await;
        assert_eq!(answer.status, 503);
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{seconds}");
    }
    assert_eq!((site.counted("throttled"), site.store.counts().await), (4, (1, 0)));
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_a_rate_of_its_own() {
    let site = Site::start_with(10, |settings| {
        settings.rate_per_ip = rarely(1);
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let ask = |number, forwarded: &str| {
        let header = format!("X-Forwarded-For: {forwarded}\r\n");
        let request = post_with("/", &usual(number), &header);
        let site = &site;
        async move { site.ask(request).await.status }
    };
    assert_eq!(ask(1, "203.0.113.9").await, 200);
    assert_eq!(ask(2, "203.0.113.9").await, 503);
    // What stands left of the proxy's own entry is the client's to say.
    assert_eq!(ask(3, "8.8.8.8, 203.0.113.9, 127.0.0.7").await, 503);
    assert_eq!(ask(4, "203.0.113.9, 203.0.113.10").await, 200);
    assert_eq!(ask(5, "2001:db8:1:2::3").await, 200);
    assert_eq!(ask(6, "2001:db8:1:2:ffff::4").await, 503);
    // Without an address it is the proxy that is counted.
    assert_eq!(ask(7, "not an address").await, 200);
    assert_eq!(ask(8, "").await, 503);
}

#[tokio::test]
async fn a_store_that_comes_back_in_time_is_no_refusal() {
    let site = Site::start_with(10, |settings| settings.patience.store = Duration::from_secs(60)).await;
    site.store.be(Mood::Away);
    let (answer, ()) = tokio::join!(site.ask(post("/", &usual(1))), async {
        // Tried, and tried again.
        site.store.called(3).await;
        site.store.be(Mood::Fine);
    });
    assert_taken(&answer);
    assert_eq!((site.counted("accepted"), site.counted("unavailable")), (1, 0));
}

#[tokio::test]
async fn a_store_that_cannot_is_503_and_the_next_message_is_stored() {
    let moods = [Mood::Away, Mood::Hangs, Mood::Panics, Mood::Miscounts, Mood::Exhausted, Mood::Unusable];
    let asked = moods.map(|mood| tokio::spawn(refuse_one_and_take_the_next(mood)));
    for one in asked {
        one.await.unwrap();
    }
}

async fn refuse_one_and_take_the_next(mood: Mood) {
    let site = Site::start_with(10, |settings| settings.patience.store = Duration::from_secs(2)).await;
    site.store.be(mood);
    let answer = site.ask(post("/", &usual(1))).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{mood:?}");
    site.store.be(Mood::Fine);
    assert_taken(&site.ask(post("/", &usual(2))).await);
    // What was refused is not stored behind its sender's back.
    assert!(site.store.has(&sid(2)).await && !site.store.has(&sid(1)).await, "{mood:?}");
    assert_eq!((site.counted("unavailable"), site.counted("accepted")), (1, 1), "{mood:?}");
}

#[tokio::test]
async fn a_full_store_is_503_and_knows_its_duplicates() {
    let site = Site::start_with(2, |_| ()).await;
    assert_taken(&site.ask(post("/", &usual(1))).await);
    assert_taken(&site.ask(post("/", &usual(2))).await);
    let answer = site.ask(post("/", &usual(3))).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_taken(&site.ask(post("/", &usual(2))).await);
    assert_eq!((site.counted("unavailable"), site.counted("duplicate")), (1, 1));
}

#[tokio::test]
async fn our_own_messages_are_dropped_unless_the_guard_is_off() {
    let site = Site::start().await;
    for own in [OUR_NUMBER, "whatsapp:+15005550006"] {
        assert_taken(&site.ask(post("/", &form(&sid(1), ("From", Some(own))))).await);
    }
    assert_eq!((site.counted("looped"), site.store.calls().len()), (2, 0));
    let open = Site::start_with(10, |settings| settings.loop_guard = LoopGuard::off()).await;
    assert_taken(&open.ask(post("/", &form(&sid(1), ("From", Some(OUR_NUMBER))))).await);
    assert_eq!((open.counted("looped"), open.store.counts().await), (0, (1, 0)));
}

#[tokio::test]
async fn many_requests_on_one_connection_are_answered_in_order() {
    let site = Site::start().await;
    let mut wire = Wire::connect(site.address).await;
    wire.send(format!("{}{}", post("/", &usual(1)), post("/", &usual(2)).replace("493817", "493818"))).await;
    wire.send(post("/twilio/sms", &usual(3))).await;
    assert_taken(&wire.answer().await.unwrap());
    assert_eq!(wire.answer().await.unwrap().status, 403);
    assert_taken(&wire.answer().await.unwrap());
}

fn verified(number: u32) -> Verified<InboundMessage> {
    let form = usual(number);
    let (signature, body) = (signature("/", &form), encoded(&form));
    let request = Request {
        post: true,
        target: "/",
        content_type: Some("application/x-www-form-urlencoded"),
        signature: Some(signature.as_bytes()),
        body: body.as_bytes(),
    };
    TwilioSource::new(twilio_settings()).verify(&request).unwrap()
}

#[tokio::test]
async fn who_comes_while_a_batch_is_stored_shares_the_next_and_nobody_waits_for_company() {
    const MANY: u32 = 50;
    let store = Arc::new(MoodyStore::new(1_000));
    let intake = Arc::new(Intake::start(store.clone(), Duration::from_secs(60)));
    let take = |number| {
        let (intake, message) = (Arc::clone(&intake), verified(number));
        tokio::spawn(async move { intake.take(&message, Duration::from_secs(600)).await })
    };
    store.be(Mood::Held);
    let first = take(0);
    store.called(1).await;
    let others: Vec<_> = (1..=MANY).map(take).collect();
    while intake.waiting() < MANY as usize {
        tokio::task::yield_now().await;
    }
    store.be(Mood::Fine);
    for taken in std::iter::once(first).chain(others) {
        assert_eq!(guarded(taken).await.unwrap(), Ok(Acceptance::Accepted));
    }
    assert_eq!(store.calls(), [1, MANY as usize]);
    assert!(MANY as usize <= MAX_BATCH);
}

#[tokio::test]
async fn nothing_of_a_message_is_in_any_answer() {
    let site = Site::start_with(1, |settings| settings.patience.store = Duration::from_millis(50)).await;
    let mut answers = vec![site.ask(post("/", &usual(1))).await, site.ask(post("/", &usual(2))).await];
    site.store.be(Mood::Away);
    answers.push(site.ask(post("/", &usual(3))).await);
    answers.push(site.ask(post("/", &usual(3)).replace("493817", "493818")).await);
    for change in [("From", Some("")), ("To", None), ("AccountSid", Some("AC0"))] {
        answers.push(site.ask(post("/", &form(&sid(4), change))).await);
    }
    for answer in answers {
        let said = format!("{answer:?}");
        for secret in [SENDER, OUR_NUMBER, TEXT, ACCOUNT, "493818", &sid(1), &sid(2), &sid(3), &sid(4)] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
}
