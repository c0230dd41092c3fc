//! What Twilio's error codes mean for an attempt: data, one row a code.
//!
//! Numbers and meanings follow Twilio's error dictionary. Twilio says that codes may change and should
//! not drive programs, so whatever is not listed falls back to the HTTP status. Some of these codes
//! come by status callback only; they are listed because a provider may move them to the answer.

use crate::channel::http::Verdict;
use crate::delivery::Reason;

/// One code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRule {
    /// Twilio's number for it.
    pub code: u32,
    /// What becomes of the attempt.
    pub verdict: Verdict,
    /// What it means, and what helps, for an operator.
    pub meaning: &'static str,
}

/// The rule for `code`, if it is listed.
pub fn rule(code: u32) -> Option<&'static CodeRule> {
    RULES.binary_search_by_key(&code, |rule| rule.code).ok().map(|at| &RULES[at])
}

/// Nothing changes it until somebody changes the account, its credentials or its numbers.
const ACCOUNT: Verdict = Verdict::Permanent(Reason::Account);
/// This recipient cannot be reached.
const RECIPIENT: Verdict = Verdict::Permanent(Reason::Recipient);
/// This text cannot be sent.
const CONTENT: Verdict = Verdict::Permanent(Reason::Content);
/// The request is wrong in a way that repeating does not mend.
const REJECTED: Verdict = Verdict::Permanent(Reason::Rejected);
/// Too much at once, or a passing conflict.
const BUSY: Verdict = Verdict::Retry(Reason::Busy);
/// Something failed on the way.
const SERVER: Verdict = Verdict::Retry(Reason::Server);

const fn row(code: u32, verdict: Verdict, meaning: &'static str) -> CodeRule {
    CodeRule { code, verdict, meaning }
}

/// Every listed code, in ascending order.
pub const RULES: &[CodeRule] = &[
    row(10001, ACCOUNT, "the account is not active"),
    row(10002, ACCOUNT, "a trial account may not do this"),
    row(14107, BUSY, "more than 15 texts in 30 s between the same two numbers"),
    row(20001, REJECTED, "the request has an unknown parameter"),
    row(
        20003,
        ACCOUNT,
        "credentials refused: wrong, revoked, of another region, or the account is suspended",
    ),
    row(20005, ACCOUNT, "the account is not active"),
    row(20006, ACCOUNT, "access denied"),
    row(20008, ACCOUNT, "test credentials cannot do this"),
    row(20010, ACCOUNT, "the account may not do this"),
    row(20403, ACCOUNT, "access denied"),
    row(20404, ACCOUNT, "no such account; check account_sid"),
    row(20409, BUSY, "conflict with another request"),
    row(20422, REJECTED, "a parameter is invalid"),
    row(20429, Verdict::Retry(Reason::RateLimited), "too many requests at once"),
    row(20500, SERVER, "an error at Twilio"),
    row(20503, SERVER, "Twilio is unavailable"),
    row(21211, RECIPIENT, "the recipient's number is invalid, or is the sending number"),
    row(21212, ACCOUNT, "the sending number or name is invalid"),
    row(21217, RECIPIENT, "the recipient's number does not look like one"),
    row(21408, ACCOUNT, "the account may not send to the recipient's region"),
    row(21601, ACCOUNT, "the sending number cannot send texts"),
    row(21602, CONTENT, "the text is empty"),
    row(21603, REJECTED, "no sending number or messaging service was given"),
    row(21604, REJECTED, "no recipient was given"),
    row(21606, ACCOUNT, "the sending number is not ours, or cannot text this destination"),
    row(21608, RECIPIENT, "a trial account sends to verified numbers only"),
    row(21609, ACCOUNT, "the status callback URL is invalid"),
    row(21610, RECIPIENT, "the recipient replied STOP; only their START undoes it"),
    row(21611, BUSY, "the sending number's queue is full"),
    row(21612, RECIPIENT, "this recipient cannot be reached from the sending number"),
    row(21614, RECIPIENT, "the recipient's number is not a mobile one"),
    row(21617, CONTENT, "the text is too long"),
    row(21618, CONTENT, "the text cannot be sent"),
    row(21619, SERVER, "the message could not be created"),
    row(21620, CONTENT, "a media URL is invalid"),
    row(21623, CONTENT, "too many media"),
    row(21654, REJECTED, "the content template is missing or unusable"),
    row(21655, REJECTED, "the content template's SID is invalid"),
    row(21656, REJECTED, "the content template's variables are invalid"),
    row(21657, REJECTED, "the content template cannot be used here"),
    row(21658, REJECTED, "a parameter is too long"),
    row(21701, ACCOUNT, "no such messaging service"),
    row(21702, BUSY, "the messaging service takes no messages at the moment"),
    row(21703, ACCOUNT, "no number of the messaging service can send this"),
    row(21704, ACCOUNT, "the messaging service has no numbers"),
    row(21705, ACCOUNT, "the messaging service's SID is invalid"),
    row(30001, BUSY, "the queue is full"),
    row(30002, ACCOUNT, "the account was suspended"),
    row(30003, SERVER, "the handset cannot be reached: off, or without signal"),
    row(30004, RECIPIENT, "the recipient blocks messages"),
    row(30005, RECIPIENT, "the recipient's number is unknown or no longer in use"),
    row(30006, RECIPIENT, "a landline, or a carrier that cannot be reached"),
    row(30007, CONTENT, "filtered as unwanted by Twilio or the carrier; repeating makes it worse"),
    row(30008, SERVER, "unknown error on the way"),
    row(30010, ACCOUNT, "over the highest price allowed"),
    row(30011, CONTENT, "the recipient's network does not take media"),
    row(30017, BUSY, "the carrier is congested"),
    row(30018, ACCOUNT, "the sender name is not registered for this destination"),
    row(30019, CONTENT, "too large for the carrier"),
    row(30022, BUSY, "over the carrier's rate for this sender or recipient"),
    row(30023, BUSY, "the carrier's daily limit is used up"),
    row(30024, ACCOUNT, "the sending number is not provisioned with the carrier yet"),
    row(30027, BUSY, "the carrier's daily limit is used up"),
    row(30032, ACCOUNT, "the toll-free number is not verified"),
    row(30033, ACCOUNT, "the 10DLC campaign is suspended"),
    row(30034, ACCOUNT, "the sending number is not registered for 10DLC"),
    row(30035, BUSY, "the sending number is still being registered"),
    row(30036, REJECTED, "its validity ended while it waited at Twilio"),
    row(30410, SERVER, "the carrier did not answer in time"),
    row(30450, BUSY, "held by protection against SMS pumping, usually for 15 to 30 minutes"),
    row(63003, RECIPIENT, "the recipient is invalid on this channel"),
    row(63016, CONTENT, "outside the time in which free text is allowed"),
    row(63017, BUSY, "over the channel's rate"),
    row(63018, BUSY, "over the channel's rate"),
    row(63024, RECIPIENT, "the recipient is invalid on this channel"),
    row(63033, RECIPIENT, "the recipient blocks us"),
    row(63038, BUSY, "the account's daily limit is used up"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_named_once() {
        assert!(RULES.is_sorted_by(|a, b| a.code < b.code));
    }

    #[test]
    fn a_code_is_found_and_an_unlisted_one_is_not() {
        assert_eq!(rule(21610).unwrap().verdict, Verdict::Permanent(Reason::Recipient));
        assert_eq!(rule(10001).unwrap().code, 10001);
        assert_eq!(rule(63038).unwrap().code, 63038);
        assert_eq!(rule(0), None);
        assert_eq!(rule(99999), None);
    }
}
