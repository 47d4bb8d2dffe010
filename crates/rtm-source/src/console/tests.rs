#![allow(clippy::unwrap_used)]

use super::*;

fn url_of(base_urls: &[&str]) -> String {
    let regions: Vec<Region> = base_urls
        .iter()
        .map(|base| Region::new("r", base, false).unwrap())
        .collect();
    url(asked(regions.iter())).to_string()
}

/// Holds: the console is asked at Agora's own host, of mainland China where every region is there; and where a region's
/// base URL is not Agora's, nobody else gets the key.
#[test]
fn the_key_goes_to_agora_or_to_who_gets_it_anyway() {
    for (bases, expected) in [
        (
            &["https://api-eu-west-1.agora.io"][..],
            "https://api.agora.io/dev/v1/projects",
        ),
        (
            &["https://api-cn-east-1.sd-rtn.com", "https://api.agora.io"],
            "https://api.agora.io/dev/v1/projects",
        ),
        (
            &["https://api-cn-east-1.sd-rtn.com"],
            "https://api.sd-rtn.com/dev/v1/projects",
        ),
        (
            &["https://api-eu-west-1.agora.io", "http://127.0.0.1:8080/eu"],
            "http://127.0.0.1:8080/eu/dev/v1/projects",
        ),
        (
            &["https://notagora.io"],
            "https://notagora.io/dev/v1/projects",
        ),
        (
            &["https://agora.io.example/x/"],
            "https://agora.io.example/x/dev/v1/projects",
        ),
    ] {
        assert_eq!(url_of(bases), expected, "{bases:?}");
    }
}

/// Holds: what the console tells of a project beside its App ID and its state is dropped.
#[test]
fn a_project_s_certificate_is_not_kept() {
    let body = r#"{"projects":[{"id":"1","name":"p","vendor_key":"a","sign_key":"canary","status":0,"created":1}]}"#;
    let body: Body = serde_json::from_str(body).unwrap();
    let projects = Projects(body.projects);
    assert!(!format!("{projects:?}").contains("canary"));
    assert_eq!(projects.count(), 1);
    assert!(projects.find("a").unwrap().is_disabled() && projects.find("A").is_none());
}
