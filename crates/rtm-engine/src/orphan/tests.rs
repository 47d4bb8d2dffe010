use rtm_journal::Options;
use rtm_record::entry::Tags;

use super::*;

/// Holds: what is left of App IDs that left the configuration goes by the names that they had, each by one of its own,
/// and never by the App ID.
#[tokio::test]
async fn removed_apps_go_by_the_names_they_had() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        min_free_bytes: 0,
        ..Options::default()
    };
    let journal = Journal::open(dir.path(), options).unwrap();
    for (app_id, app) in [("0c", "chat"), ("0d", "chat"), ("0e", "")] {
        let tags = Tags {
            app: app.into(),
            app_id: app_id.into(),
            region: "eu-west-1".into(),
            stream: "user".into(),
            fetched_at: 0,
            status: 200,
            request_id: None,
            complete: true,
        };
        let bytes = match app {
            "" => b"of a later version".to_vec(),
            _ => entry::with_tags(&tags, None, b"{}"),
        };
        let lane = lanes::open(&journal, app, app_id).unwrap();
        let room = lane.reserve(bytes.len()).await;
        room.append(bytes, 1).await.unwrap();
        drop(lanes::reader(&lane, "kafka").unwrap());
    }
    let mut orphans = BTreeMap::new();
    for stats in journal.stats().lanes {
        assert!(is_pending(&stats, "kafka") && is_pending(&stats, "new"));
        let orphan = Orphan::open(&journal, &stats, None, &orphans).unwrap();
        orphans.insert(stats.name.to_string(), orphan);
    }
    let mut names: Vec<&str> = orphans.values().map(|orphan| &*orphan.name).collect();
    names.sort_unstable();
    let expected = ["an app (removed)", "chat (removed 2)", "chat (removed)"];
    assert_eq!(names, expected);
}
