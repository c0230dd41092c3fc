#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sms_broadcaster_fuzz::provider_answer(data));
