#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sms_broadcaster_fuzz::stored_message(data));
