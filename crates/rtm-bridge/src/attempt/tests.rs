#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use super::*;

/// Holds: whoever asks waits no longer than its patience; one attempt is under way at a time; and the next call has its end.
#[tokio::test]
async fn one_attempt_is_under_way() {
    let attempt = Attempt::default();
    let (answer, hangs) = mpsc::channel::<u8>();
    let first = || tokio::task::spawn_blocking(move || hangs.recv().unwrap());
    let moment = Duration::from_millis(10);
    assert!(attempt.wait(moment, first).await.is_none());
    let none = || panic!("a second attempt");
    assert!(attempt.wait(moment, none).await.is_none());
    answer.send(1).unwrap();
    let long = Duration::from_secs(60);
    assert_eq!(attempt.wait(long, none).await.unwrap().unwrap(), 1);
    let next = || tokio::task::spawn_blocking(|| 2);
    assert_eq!(attempt.wait(long, next).await.unwrap().unwrap(), 2);
}
