use super::*;

/// Holds: batches share what they may hold beyond their first page, and give back what they did not need, and all of
/// it when they are settled.
#[test]
fn batches_share_their_room() {
    let spare = Arc::new(Semaphore::new(2 * PAGE_ROOM as usize));
    let [mut first, mut second, mut third] = [(); 3].map(|()| Batch::default());
    assert!(first.has_room(Arc::clone(&spare)) && second.has_room(Arc::clone(&spare)));
    assert!(!third.has_room(Arc::clone(&spare)), "all of it is taken");
    first.keep_room(1000);
    second.keep_room(10);
    assert!(
        !third.has_room(Arc::clone(&spare)),
        "not all of a page is left"
    );
    drop(first);
    assert_eq!(spare.available_permits(), 1990);
    assert!(second.has_room(Arc::clone(&spare)));
    second.keep_room(0);
    assert_eq!(spare.available_permits(), 1990);
    drop(second);
    assert_eq!(spare.available_permits(), 2000);
}
