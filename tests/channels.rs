//! The channels against a real HTTP server: what is on the wire, and what is made of every answer.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use sms_broadcaster::channel::contract::{Channel, Dispatch};
use sms_broadcaster::channel::http::{HttpClient, Verdict};
use sms_broadcaster::channel::slack::{ERROR_WORDS, SlackChannel, SlackSettings};
use sms_broadcaster::channel::sms::{SmsChannel, SmsSender, SmsSettings};
use sms_broadcaster::channel::twilio_codes::{RULES, rule};
use sms_broadcaster::clock::{Clock, Timestamp};
use sms_broadcaster::delivery::{Attempt, ChannelId, DeliveryId, Outcome, Reason, Recipient, WebhookUrl};
use sms_broadcaster::message::{AccountSid, Address, Body, MessageId, PhoneNumber};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::provider::{ACCOUNT_SID, AUTH_TOKEN, Provider, Reply};

const PHONE: &str = "+14443332222";
const FROM: &str = "+15005550006";

/// Longer than any answer on loopback takes, shorter than anybody's patience.
const TIMEOUT: Duration = Duration::from_secs(20);
/// For attempts that are meant to run into it.
const SHORT: Duration = Duration::from_millis(800);

fn http() -> HttpClient {
    HttpClient::for_plain_http(Clock::system())
}

fn settings(api_base: &str, timeout: Duration) -> SmsSettings {
    SmsSettings {
        api_base: api_base.to_owned(),
        account_sid: AccountSid::parse(ACCOUNT_SID).unwrap(),
        user: ACCOUNT_SID.to_owned(),
        password: SecretString::from(AUTH_TOKEN),
        sender: SmsSender::From(Address::parse(FROM).expect("a number")),
        timeout,
    }
}

fn sms(provider: &Provider, timeout: Duration) -> SmsChannel {
    SmsChannel::new(settings(&provider.api_base(), timeout), http()).unwrap()
}

fn slack(timeout: Duration) -> SlackChannel {
    SlackChannel::new(SlackSettings { timeout }, http())
}

fn dispatch(recipient: Recipient, text: &str) -> Dispatch {
    let message = MessageId::parse("SM0123456789abcdef0123456789abcdef").unwrap();
    let delivery = DeliveryId { message, index: 1 };
    Dispatch { delivery, recipient, text: Body::new(text), time_left: Duration::from_millis(599_900) }
}

fn phone(number: &str) -> Recipient {
    Recipient::Sms { to: PhoneNumber::parse(number).unwrap() }
}

fn webhook(url: &str) -> Recipient {
    let url = WebhookUrl::parse(url).unwrap();
    Recipient::Slack { url, channel: None, username: None, icon_emoji: None }
}

/// One attempt, guarded against hanging for ever.
async fn attempt(channel: &dyn Channel, dispatch: Dispatch) -> Outcome {
    timeout(Duration::from_secs(30), channel.deliver(dispatch)).await.expect("an attempt ends")
}

async fn text(channel: &SmsChannel) -> Outcome {
    attempt(channel, dispatch(phone(PHONE), "code 493817")).await
}

async fn post(channel: &SlackChannel, url: &str) -> Outcome {
    attempt(channel, dispatch(webhook(url), "code 493817")).await
}

fn ambiguous(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { ambiguous: true, .. })
}

fn asked_for(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Retry { after, .. } => *after,
        _ => None,
    }
}

/// `retry server 503`: what an outcome says, without its code.
fn said(outcome: &Outcome) -> String {
    let status = outcome.status().map_or("none".to_owned(), |status| status.to_string());
    format!("{} {} {status}", outcome.as_str(), outcome.reason().as_str())
}

#[tokio::test]
async fn a_text_is_one_form_post_with_basic_authentication() {
    let provider = Provider::start();
    let recipient = phone(PHONE);
    let outcome = attempt(
        &sms(&provider, TIMEOUT),
        dispatch(recipient, "MFA challenge from GitHub\nYour code: 49&38=17 é 🔑 100%+"),
    )
    .await;
    assert_eq!(outcome, Outcome::Delivered { status: Some(201) });

    let [request] = &provider.received(PHONE)[..] else { panic!("one request") };
    assert_eq!(request.target, format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"));
    let expected = [
        ("To", PHONE),
        ("From", FROM),
        ("Body", "MFA challenge from GitHub\nYour code: 49&38=17 é 🔑 100%+"),
        ("ValidityPeriod", "599"),
    ];
    assert_eq!(request.form(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let basic = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT_SID}:{AUTH_TOKEN}")));
    assert_eq!(request.header("authorization"), Some(basic.as_str()));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
    assert!(request.header("user-agent").unwrap().starts_with("sms-broadcaster/"));
}

#[tokio::test]
async fn a_messaging_service_and_an_api_key_take_the_places_of_number_and_token() {
    let provider = Provider::start();
    provider.always(PHONE, Reply::status(201));
    let service = "MG0123456789abcdef0123456789abcdef";
    let settings = SmsSettings {
        user: "SK0123456789abcdef0123456789abcdef".to_owned(),
        password: SecretString::from("key-secret"),
        sender: SmsSender::Service(service.to_owned()),
        ..settings(&provider.api_base(), TIMEOUT)
    };
    let outcome = text(&SmsChannel::new(settings, http()).unwrap()).await;
    assert_eq!(outcome.as_str(), "delivered");
    let request = &provider.received(PHONE)[0];
    assert_eq!(request.field("MessagingServiceSid").as_deref(), Some(service));
    assert_eq!(request.field("From"), None);
    let basic = STANDARD.encode("SK0123456789abcdef0123456789abcdef:key-secret");
    assert_eq!(request.header("authorization"), Some(format!("Basic {basic}").as_str()));
    assert!(request.target.contains(ACCOUNT_SID));
}

#[tokio::test]
async fn a_long_text_arrives_cut_to_what_twilio_takes() {
    let provider = Provider::start();
    let long = "🔑".repeat(1000);
    let outcome = attempt(&sms(&provider, TIMEOUT), dispatch(phone(PHONE), &long)).await;
    assert_eq!(outcome.as_str(), "delivered");
    let sent = provider.received(PHONE)[0].text();
    assert!(sent.ends_with("🔑…"));
    assert_eq!(sent.encode_utf16().count(), 1599);
}

#[tokio::test]
async fn a_slack_message_is_exactly_the_documented_json() {
    let provider = Provider::start();
    let channel = slack(TIMEOUT);
    let plain = attempt(&channel, dispatch(webhook(&provider.slack_url("plain")), "a \"b\"\n```é```")).await;
    assert_eq!(plain, Outcome::Delivered { status: Some(200) });
    let [request] = &provider.received("plain")[..] else { panic!("one request") };
    assert_eq!(
        std::str::from_utf8(&request.body).unwrap(),
        r#"{"username":"MFA Broadcaster","icon_emoji":":key:","text":"a \"b\"\n```é```","unfurl_links":false,"unfurl_media":false}"#
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("authorization"), None);

    let recipient = Recipient::Slack {
        url: WebhookUrl::parse(&provider.slack_url("dressed")).unwrap(),
        channel: Some("#mfa".into()),
        username: Some("Door".into()),
        icon_emoji: Some(":door:".into()),
    };
    let _ = attempt(&channel, dispatch(recipient, "x")).await;
    assert_eq!(
        std::str::from_utf8(&provider.received("dressed")[0].body).unwrap(),
        r##"{"username":"Door","icon_emoji":":door:","channel":"#mfa","text":"x","unfurl_links":false,"unfurl_media":false}"##
    );
}

#[tokio::test]
async fn a_recipient_of_another_channel_is_unreadable_and_nothing_is_sent() {
    let provider = Provider::start();
    let misled = attempt(&sms(&provider, TIMEOUT), dispatch(webhook(&provider.slack_url("x")), "x")).await;
    assert_eq!(said(&misled), "permanent unreadable none");
    let misled = attempt(&slack(TIMEOUT), dispatch(phone(PHONE), "x")).await;
    assert_eq!(said(&misled), "permanent unreadable none");
    assert!(provider.requests().is_empty());
    assert_eq!(sms(&provider, TIMEOUT).id(), ChannelId::sms());
    assert_eq!(slack(TIMEOUT).id(), ChannelId::slack());
}

#[tokio::test]
async fn every_twilio_code_has_its_outcome_and_is_reported() {
    use Reason::{Account, Busy, Content, RateLimited, Recipient, Rejected, Server};
    let retried: [(Reason, &[u32]); 3] = [
        (RateLimited, &[20429]),
        (
            Busy,
            &[
                14107, 20409, 21611, 21702, 30001, 30017, 30022, 30023, 30027, 30035, 30450, 63017, 63018,
                63038,
            ],
        ),
        (Server, &[20500, 20503, 21619, 30003, 30008, 30410]),
    ];
    let refused: [(Reason, &[u32]); 4] = [
        (Recipient, &[21211, 21217, 21608, 21610, 21612, 21614, 30004, 30005, 30006, 63003, 63024, 63033]),
        (
            Account,
            &[
                10001, 10002, 20003, 20005, 20006, 20008, 20010, 20403, 20404, 21212, 21408, 21601, 21606,
                21609, 21701, 21703, 21704, 21705, 30002, 30010, 30018, 30024, 30032, 30033, 30034,
            ],
        ),
        (Content, &[21602, 21617, 21618, 21620, 21623, 30007, 30011, 30019, 63016]),
        (Rejected, &[20001, 20422, 21603, 21604, 21654, 21655, 21656, 21657, 21658, 30036]),
    ];
    let rows = |retry: bool, groups: &[(Reason, &[u32])]| -> Vec<(u32, Verdict)> {
        let verdict = |reason| if retry { Verdict::Retry(reason) } else { Verdict::Permanent(reason) };
        groups
            .iter()
            .flat_map(|&(reason, codes)| codes.iter().map(move |&code| (code, verdict(reason))))
            .collect()
    };
    let expected = [rows(true, &retried), rows(false, &refused)].concat();
    assert_eq!(expected.len(), RULES.len(), "a row is not expected here, or an expected one is missing");

    let provider = Provider::start();
    let channel = sms(&provider, TIMEOUT);
    for (code, verdict) in expected {
        assert_eq!(rule(code).map(|rule| rule.verdict), Some(verdict), "{code}");
        provider.script(PHONE, [Reply::twilio_error(400, code)]);
        let outcome = text(&channel).await;
        let judged = match verdict {
            Verdict::Retry(reason) => format!("retry {} 400", reason.as_str()),
            Verdict::Permanent(reason) => format!("permanent {} 400", reason.as_str()),
        };
        assert_eq!(said(&outcome), judged, "{code}");
        assert_eq!(outcome.code(), Some(code.to_string().as_str()));
        assert!(!ambiguous(&outcome), "{code}: an answer came");
    }
}

#[tokio::test]
async fn every_slack_word_has_its_outcome_and_is_reported() {
    let expected = [
        (400, "invalid_payload", "permanent content"),
        (400, "invalid_blocks", "permanent content"),
        (400, "no_text", "permanent content"),
        (400, "too_many_attachments", "permanent content"),
        (400, "user_not_found", "permanent recipient"),
        (403, "action_prohibited", "permanent account"),
        (403, "posting_to_general_channel_denied", "permanent account"),
        (403, "invalid_token", "permanent account"),
        (404, "no_service", "permanent recipient"),
        (404, "no_service_id", "permanent recipient"),
        (404, "no_team", "permanent recipient"),
        (404, "channel_not_found", "permanent recipient"),
        (404, "no_active_hooks", "permanent recipient"),
        (410, "channel_is_archived", "permanent recipient"),
        (403, "team_disabled", "permanent recipient"),
        (429, "rate_limited", "retry rate_limited"),
        (500, "rollup_error", "retry server"),
        (500, "server_error", "retry server"),
    ];
    assert_eq!(expected.len(), ERROR_WORDS.len());
    let provider = Provider::start();
    let channel = slack(TIMEOUT);
    for (status, word, judged) in expected {
        provider.script("hook", [Reply::status(status).body(word)]);
        let outcome = post(&channel, &provider.slack_url("hook")).await;
        assert_eq!(said(&outcome), format!("{judged} {status}"), "{word}");
        assert_eq!(outcome.code(), Some(word));
    }
}

#[tokio::test]
async fn statuses_without_a_known_code_fall_into_their_class() {
    let provider = Provider::start();
    let (sms, slack) = (sms(&provider, TIMEOUT), slack(TIMEOUT));
    for (status, of_sms, of_slack) in [
        (200, "delivered ok", "permanent rejected"),
        (201, "delivered ok", "permanent rejected"),
        (204, "delivered ok", "permanent rejected"),
        (301, "permanent rejected", "permanent rejected"),
        (304, "permanent rejected", "permanent rejected"),
        (400, "permanent rejected", "permanent rejected"),
        (401, "permanent account", "permanent rejected"),
        (403, "permanent account", "permanent rejected"),
        (404, "permanent account", "permanent rejected"),
        (405, "permanent rejected", "permanent rejected"),
        (408, "retry timeout", "retry timeout"),
        (409, "retry busy", "permanent rejected"),
        (410, "permanent rejected", "permanent rejected"),
        (413, "permanent rejected", "permanent rejected"),
        (425, "retry server", "retry server"),
        (429, "retry rate_limited", "retry rate_limited"),
        (500, "retry server", "retry server"),
        (502, "retry server", "retry server"),
        (503, "retry server", "retry server"),
        (504, "retry server", "retry server"),
        (599, "retry server", "retry server"),
    ] {
        let page = || Reply::status(status).body("<html>Something went wrong</html>");
        provider.script(PHONE, [page()]);
        assert_eq!(said(&text(&sms).await), format!("{of_sms} {status}"));
        provider.script("hook", [page()]);
        assert_eq!(said(&post(&slack, &provider.slack_url("hook")).await), format!("{of_slack} {status}"));
    }
}

#[tokio::test]
async fn a_provider_that_reads_and_says_nothing_may_have_sent() {
    let provider = Provider::start();
    provider.always(PHONE, Reply::hang());
    provider.always("hook", Reply::hang());
    for outcome in
        [text(&sms(&provider, SHORT)).await, post(&slack(SHORT), &provider.slack_url("hook")).await]
    {
        assert_eq!(said(&outcome), "retry timeout none");
        assert!(ambiguous(&outcome));
        assert!(Attempt::of(&outcome, Timestamp::from_millis(0)).unwrap().ambiguous);
    }
}

#[tokio::test]
async fn a_connection_closed_after_the_request_may_have_sent() {
    let provider = Provider::start();
    let channel = sms(&provider, TIMEOUT);
    // On a new connection and on one that was used before.
    provider.script(PHONE, [Reply::close(), Reply::ok(), Reply::close(), Reply::ok()]);
    for expected in ["retry broken none", "delivered ok 201", "retry broken none", "delivered ok 201"] {
        let outcome = text(&channel).await;
        assert_eq!(said(&outcome), expected);
        assert_eq!(ambiguous(&outcome), expected.starts_with("retry"));
    }
    assert_eq!(provider.requests().len(), 4, "the client repeats nothing by itself");
}

#[tokio::test]
async fn an_answer_that_is_not_http_may_have_sent() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await.unwrap();
    };
    let channel = SmsChannel::new(settings(&base, TIMEOUT), http()).unwrap();
    let (outcome, ()) = tokio::join!(text(&channel), serve);
    assert_eq!(said(&outcome), "retry broken none");
    assert!(ambiguous(&outcome));
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = SmsChannel::new(settings(&format!("http://{address}"), TIMEOUT), http()).unwrap();
    let outcome = text(&refused).await;
    assert_eq!(said(&outcome), "retry connect none");
    assert!(!ambiguous(&outcome));

    // A server that does not speak TLS never saw the request either.
    let provider = Provider::start();
    let https = provider.api_base().replace("http:", "https:");
    let outcome = text(&SmsChannel::new(settings(&https, TIMEOUT), http()).unwrap()).await;
    assert_eq!(said(&outcome), "retry connect none");
    assert!(!ambiguous(&outcome));
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_in_time_sent_nothing() {
    // It accepts and never answers the TLS handshake, so there is nothing to write to.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("https://{}", silent.local_addr().unwrap());
    let outcome = text(&SmsChannel::new(settings(&base, SHORT), http()).unwrap()).await;
    assert_eq!(said(&outcome), "retry timeout none");
    assert!(!ambiguous(&outcome));

    // Nor is it begun when the deadline has passed by the time it could be.
    let patient = SmsChannel::new(settings(&base, TIMEOUT), http()).unwrap();
    let late = Dispatch { time_left: Duration::from_millis(50), ..dispatch(phone(PHONE), "code 493817") };
    let outcome = attempt(&patient, late).await;
    assert_eq!(said(&outcome), "retry timeout none");
    assert!(!ambiguous(&outcome));
}

#[tokio::test]
async fn an_answer_that_comes_after_the_deadline_still_counts() {
    let provider = Provider::start();
    // Time enough to connect and to write.
    let time_left = Duration::from_secs(1);
    provider.always(PHONE, Reply::ok().delayed(time_left + Duration::from_millis(200)));
    let late = Dispatch { time_left, ..dispatch(phone(PHONE), "code 493817") };
    let outcome = attempt(&sms(&provider, TIMEOUT), late).await;
    assert_eq!(said(&outcome), "delivered ok 201");
    assert_eq!(provider.received(PHONE)[0].field("ValidityPeriod").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_redirect_is_refused_and_not_followed() {
    let provider = Provider::start();
    for status in [301, 302, 303, 307, 308] {
        let away = || Reply::status(status).header("Location", &provider.slack_url("elsewhere"));
        provider.script(PHONE, [away()]);
        provider.script("hook", [away()]);
        let outcome = text(&sms(&provider, TIMEOUT)).await;
        assert_eq!(said(&outcome), format!("permanent rejected {status}"));
        let outcome = post(&slack(TIMEOUT), &provider.slack_url("hook")).await;
        assert_eq!(said(&outcome), format!("permanent rejected {status}"));
    }
    assert!(provider.received("elsewhere").is_empty());
}

#[tokio::test]
async fn an_answer_of_any_size_is_judged_by_its_beginning() {
    let provider = Provider::start();
    let (sms, slack) = (sms(&provider, TIMEOUT), slack(TIMEOUT));
    let huge = "x".repeat(1_000_000);
    for (status, of_sms, of_slack) in [
        (200, "delivered ok", "permanent rejected"),
        (400, "permanent rejected", "permanent rejected"),
        (503, "retry server", "retry server"),
    ] {
        // The second one has no end at all.
        for reply in [Reply::status(status).body(&*huge), Reply::status(status).body(&*huge).then_hang()] {
            provider.script(PHONE, [reply.clone()]);
            assert_eq!(said(&text(&sms).await), format!("{of_sms} {status}"));
            provider.script("hook", [reply]);
            assert_eq!(
                said(&post(&slack, &provider.slack_url("hook")).await),
                format!("{of_slack} {status}")
            );
        }
    }
    // "ok" and then more, beyond what is read, is not "ok".
    let padded = format!("ok{}", " ".repeat(1_000_000));
    provider.script("hook", [Reply::status(200).body(padded)]);
    assert_eq!(said(&post(&slack, &provider.slack_url("hook")).await), "permanent rejected 200");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_within_the_same_time_limit() {
    let provider = Provider::start();
    let (sms, slack) = (sms(&provider, SHORT), slack(SHORT));
    // Twilio's status says it all, Slack's does not.
    provider.script(PHONE, [Reply::status(201).body("{").then_hang()]);
    assert_eq!(said(&text(&sms).await), "delivered ok 201");
    provider.script("hook", [Reply::status(200).body("o").then_hang()]);
    let outcome = post(&slack, &provider.slack_url("hook")).await;
    assert_eq!(said(&outcome), "retry timeout 200");
    assert!(ambiguous(&outcome));
    for (status, judged) in [(400, "permanent rejected 400"), (503, "retry server 503")] {
        provider.script(PHONE, [Reply::status(status).body("{").then_hang()]);
        let outcome = text(&sms).await;
        assert_eq!(said(&outcome), judged);
        assert!(!ambiguous(&outcome));
        provider.script("hook", [Reply::status(status).body("no_serv").then_hang()]);
        let outcome = post(&slack, &provider.slack_url("hook")).await;
        assert_eq!((said(&outcome).as_str(), outcome.code()), (judged, None));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told_from_a_whole_one() {
    let provider = Provider::start();
    let (sms, slack) = (sms(&provider, TIMEOUT), slack(TIMEOUT));
    provider.script(PHONE, [Reply::status(201).body("{\"sid\":").then_close()]);
    assert_eq!(said(&text(&sms).await), "delivered ok 201");
    provider.script("hook", [Reply::status(200).body("ok").then_close()]);
    let outcome = post(&slack, &provider.slack_url("hook")).await;
    assert_eq!(said(&outcome), "retry broken 200");
    assert!(ambiguous(&outcome));
}

#[tokio::test]
async fn retry_after_is_read_from_any_status_that_may_pass() {
    let provider = Provider::start();
    let (sms, slack) = (sms(&provider, TIMEOUT), slack(TIMEOUT));
    let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
    for (value, expected) in [
        ("30", seconds(30.0)),
        ("0", seconds(0.0)),
        ("1.5", seconds(1.5)),
        ("999999", seconds(3600.0)),
        ("Fri, 01 Jan 2100 00:00:00 GMT", seconds(3600.0)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", seconds(0.0)),
        ("soon", None),
        ("-5", None),
        ("", None),
    ] {
        provider.script(PHONE, [Reply::too_many(value), Reply::status(503).header("Retry-After", value)]);
        provider.script("hook", [Reply::too_many(value)]);
        let limited = text(&sms).await;
        assert_eq!((said(&limited).as_str(), asked_for(&limited)), ("retry rate_limited 429", expected));
        let failed = text(&sms).await;
        assert_eq!((said(&failed).as_str(), asked_for(&failed)), ("retry server 503", expected));
        let limited = post(&slack, &provider.slack_url("hook")).await;
        assert_eq!((said(&limited).as_str(), asked_for(&limited)), ("retry rate_limited 429", expected));
    }
    // A date is counted from the server's own clock.
    provider.script(
        PHONE,
        [Reply::too_many("Tue, 24 Nov 2026 02:04:21 GMT").header("Date", "Tue, 24 Nov 2026 02:03:51 GMT")],
    );
    assert_eq!(asked_for(&text(&sms).await), seconds(30.0));
}

#[tokio::test]
async fn metadata_and_link_local_addresses_are_never_dialled_in_any_spelling() {
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "http://2852039166/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
    ] {
        let outcome = post(&slack(TIMEOUT), url).await;
        assert_eq!(said(&outcome), "permanent forbidden none", "{url}");
        let outcome = text(&SmsChannel::new(settings(url, TIMEOUT), http()).unwrap()).await;
        assert_eq!(said(&outcome), "permanent forbidden none", "{url}");
    }
}

#[tokio::test]
async fn a_name_of_this_machine_is_allowed() {
    let provider = Provider::start();
    let by_name = provider.slack_url("hook").replace("127.0.0.1", "localhost");
    assert_eq!(said(&post(&slack(TIMEOUT), &by_name).await), "delivered ok 200");
}

#[tokio::test]
async fn attempts_one_after_another_share_a_connection() {
    let provider = Provider::start();
    let channel = sms(&provider, TIMEOUT);
    for _ in 0..5 {
        assert_eq!(said(&text(&channel).await), "delivered ok 201");
    }
    assert_eq!(provider.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_attempts_at_once_all_arrive_each_once() {
    let provider = Provider::start();
    let channel = Arc::new(sms(&provider, TIMEOUT));
    let numbers: Vec<String> = (0..2000).map(|n| format!("+1444{n:07}")).collect();
    let permits = Arc::new(tokio::sync::Semaphore::new(100));
    for number in &numbers {
        let dispatch = dispatch(phone(number), "code 493817");
        let (channel, permits) = (Arc::clone(&channel), Arc::clone(&permits));
        tokio::spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            assert_eq!(said(&channel.deliver(dispatch).await), "delivered ok 201");
        });
    }
    provider.wait_until("2000 texts were accepted", |all| all.len() >= 2000).await;
    let mut reached: Vec<_> = provider.requests().into_iter().map(|request| request.destination).collect();
    reached.sort();
    assert_eq!(reached, numbers);
    assert!(provider.requests().iter().all(|request| request.accepted()));
    assert!(provider.connections() <= 200, "{} connections", provider.connections());
}

#[tokio::test]
async fn requests_are_recorded_in_order_and_found_by_their_destination() {
    let provider = Provider::start();
    let channel = sms(&provider, TIMEOUT);
    provider.always(PHONE, Reply::status(503));
    provider.script(PHONE, [Reply::twilio_error(400, 21610)]);
    let outcomes = [text(&channel).await, text(&channel).await];
    let _ = attempt(&channel, dispatch(phone("+19998887777"), "other")).await;
    assert_eq!(outcomes.map(|outcome| said(&outcome)), ["permanent recipient 400", "retry server 503"]);
    let statuses: Vec<_> = provider.received(PHONE).iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(400), Some(503)]);
    let all = provider.requests();
    assert!(all.is_sorted_by_key(|request| request.at));
    assert_eq!(all[2].text(), "other");
}

#[tokio::test]
async fn the_fake_provider_refuses_what_the_real_one_refuses() {
    let provider = Provider::start();
    let wrong_token =
        SmsSettings { password: SecretString::from("wrong"), ..settings(&provider.api_base(), TIMEOUT) };
    let outcome = text(&SmsChannel::new(wrong_token, http()).unwrap()).await;
    assert_eq!((said(&outcome).as_str(), outcome.code()), ("permanent account 401", Some("20003")));

    let to_ourselves = SmsSettings {
        sender: SmsSender::From(Address::parse(PHONE).expect("a number")),
        ..settings(&provider.api_base(), TIMEOUT)
    };
    let outcome = text(&SmsChannel::new(to_ourselves, http()).unwrap()).await;
    assert_eq!((said(&outcome).as_str(), outcome.code()), ("permanent recipient 400", Some("21211")));

    let empty = attempt(&sms(&provider, TIMEOUT), dispatch(phone(PHONE), "")).await;
    assert_eq!((said(&empty).as_str(), empty.code()), ("permanent content 400", Some("21602")));
    let empty = attempt(&slack(TIMEOUT), dispatch(webhook(&provider.slack_url("hook")), "")).await;
    assert_eq!((said(&empty).as_str(), empty.code()), ("permanent content 400", Some("no_text")));
}

/// Everything the programs could log, kept for the test to read.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_logs_nor_outcomes_nor_debug_output_tell_a_secret() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("the capture works");

    let provider = Provider::start();
    let echo = "code 493817 for +14443332222 by T0SECRET";
    let (sms, slack) = (sms(&provider, SHORT), slack(SHORT));
    let url = provider.slack_url("T0SECRET");
    let mut shown = format!("{sms:?} {slack:?} {:?} {:?}", dispatch(phone(PHONE), echo), webhook(&url));
    for reply in [
        Reply::ok(),
        Reply::status(400).body(echo),
        Reply::status(503).body(echo).header("Retry-After", "1"),
        Reply::status(302).header("Location", &url),
        Reply::status(200).body(echo).then_close(),
        Reply::hang(),
        Reply::close(),
    ] {
        provider.script(PHONE, [reply.clone()]);
        provider.script("T0SECRET", [reply]);
        for outcome in [
            attempt(&sms, dispatch(phone(PHONE), echo)).await,
            attempt(&slack, dispatch(webhook(&url), echo)).await,
        ] {
            let attempt = Attempt::of(&outcome, Timestamp::from_millis(0));
            let summary = attempt.as_ref().map(Attempt::summary);
            shown.push_str(&format!("{outcome:?} {attempt:?} {summary:?}"));
        }
    }
    for dead in ["http://127.0.0.1:1/slack/T0SECRET", "http://169.254.169.254/T0SECRET"] {
        shown.push_str(&format!("{:?}", post(&slack, dead).await));
    }

    let logged = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("the capture works"));
    let basic = STANDARD.encode(format!("{ACCOUNT_SID}:{AUTH_TOKEN}"));
    for secret in ["493817", "14443332222", "4443332222", "T0SECRET", AUTH_TOKEN, basic.as_str()] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
        assert!(!logged.contains(secret), "{secret} is in {logged}");
    }
    assert_eq!(provider.received("T0SECRET").len(), 7, "everything was really tried");
}
