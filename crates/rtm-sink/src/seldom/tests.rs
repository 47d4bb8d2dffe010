use super::*;

/// Holds: what repeats itself is said once, and a minute later with how often it came.
#[tokio::test(start_paused = true)]
async fn a_flood_is_a_line_a_minute() {
    let mut seldom = Seldom::default();
    assert_eq!(seldom.due(0), None);
    assert_eq!(seldom.due(1), Some(1));
    for _ in 0..3_000 {
        assert_eq!(seldom.due(1), None);
    }
    tokio::time::advance(AGAIN).await;
    assert_eq!(seldom.due(2), Some(3_002));
    assert_eq!(seldom.due(1), None);
    tokio::time::advance(2 * AGAIN).await;
    assert_eq!(seldom.due(0), Some(1));
    tokio::time::advance(2 * AGAIN).await;
    assert_eq!(seldom.due(0), None);
}
