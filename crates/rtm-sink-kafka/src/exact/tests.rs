use super::*;

fn key(lane: &str) -> ProgressKey {
    let (sink, lane) = ("kafka".into(), lane.into());
    ProgressKey {
        journal: 1,
        sink,
        lane,
    }
}

/// Holds: what a producer has read before it began replaces nothing that a lane, which changed over meanwhile, has stored
/// by the other one since.
#[test]
fn what_was_read_before_a_lane_came_is_not_believed() {
    let prefix = prefix(&(1, "kafka".into()));
    for place in [Place::Main, Place::Aside] {
        let lanes = Lanes::default();
        let put = |lane: &str| lock(&lanes.aside).insert(key(lane), Instant::now());
        match place {
            Place::Main => put("comes"),
            Place::Aside => put("stays"),
        };
        let before = lanes.aside();
        let read = ["stays", "comes"].map(|lane| {
            let (stored_ms, value) = (0, b"read".to_vec());
            (key(lane).to_string(), Found { stored_ms, value })
        });
        for lane in ["stays", "comes"] {
            let known = (key(lane).to_string(), Bytes::from("since"));
            lock(&lanes.progress).extend([known]);
        }
        match place {
            Place::Main => lock(&lanes.aside).clear(),
            Place::Aside => drop(put("comes")),
        }
        lanes.take_in(place, &before, &prefix, read.into());
        let known = lock(&lanes.progress);
        assert_eq!(known[&key("stays").to_string()], "read", "{place:?}");
        assert_eq!(known[&key("comes").to_string()], "since", "{place:?}");
    }
}
