//! Tests with random input that frames are encoded and decoded correctly.

use super::*;
use proptest::prelude::*;

fn request() -> impl Strategy<Value = Request> {
    let name = "[A-Z_]{1,20}";
    let value = "[^\0]{0,60}";
    (proptest::collection::vec((name, value), 0..8), proptest::collection::vec(any::<u8>(), 0..2000))
        .prop_map(|(env, stdin)| Request { env, stdin })
}

proptest! {
    #[test]
    fn a_request_is_decoded_as_it_was_encoded(request in request()) {
        let frame = request.encode().unwrap();
        prop_assert_eq!(Request::needed(&frame).unwrap(), frame.len());
        prop_assert_eq!(Request::decode(&frame).unwrap(), request);
    }

    #[test]
    fn a_reader_that_reads_the_needed_length_reads_exactly_the_frame(request in request(), more in any::<[u8; 9]>()) {
        let frame = request.encode().unwrap();
        let stream: Vec<u8> = frame.iter().copied().chain(more).collect();
        let mut have = 0;
        loop {
            let needed = Request::needed(&stream[..have]).unwrap();
            if needed <= have { break; }
            have = needed;
        }
        prop_assert_eq!(have, frame.len());
    }

    #[test]
    fn a_shortened_or_extended_frame_is_refused(request in request(), cut in 0usize..100) {
        let mut frame = request.encode().unwrap();
        frame.push(0);
        prop_assert!(Request::decode(&frame).is_err());
        frame.truncate(frame.len().saturating_sub(2 + cut));
        prop_assert!(Request::decode(&frame).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), magic in any::<bool>()) {
        let bytes = if magic { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
        let _ = (Request::needed(&bytes), Request::decode(&bytes), Response::needed(&bytes), Response::decode(&bytes));
    }

    #[test]
    fn a_response_is_decoded_as_it_was_encoded(exit in 0u8..2, stdout in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let response = Response { exit, stdout };
        let frame = response.encode().unwrap();
        prop_assert_eq!(Response::needed(&frame[..1]).unwrap(), 5);
        prop_assert_eq!(Response::needed(&frame).unwrap(), frame.len());
        prop_assert_eq!(Response::decode(&frame).unwrap(), response);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_the_bytes_arrive() {
    let mut frame = MAGIC.to_vec();
    frame.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Request::needed(&frame), Err(FrameError::TooLong));
    assert_eq!(Response::needed(&[0, 255, 255, 255, 255]), Err(FrameError::TooLong));
}

#[test]
fn a_name_with_an_equals_sign_or_a_nul_is_refused() {
    for (name, value) in [("A=B", "c"), ("A\0", "c"), ("A", "c\0d")] {
        let request = Request { env: vec![(name.into(), value.into())], stdin: Vec::new() };
        assert_eq!(request.encode(), Err(FrameError::Environment));
    }
}

#[test]
fn a_request_of_another_program_is_refused_at_its_first_byte() {
    assert_eq!(Request::needed(b"G"), Err(FrameError::Magic));
    assert_eq!(Request::needed(b""), Ok(8));
}
