#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn builtin_regions_are_https_and_in_the_right_domain() {
    for name in Region::builtin_names() {
        let region = Region::builtin(name).unwrap();
        assert_eq!(region.name(), name);
        assert_eq!(region.base_url().scheme(), "https");
        let domain = if name.starts_with("cn-") {
            "sd-rtn.com"
        } else {
            "agora.io"
        };
        assert_eq!(
            region.base_url().host_str().unwrap(),
            format!("api-{name}.{domain}")
        );
    }
}

#[test]
fn an_unknown_region_names_the_nearest_and_all() {
    for (typed, meant) in [
        ("eu-west1", Some("eu-west-1")),
        ("api-eu-west-1", Some("eu-west-1")),
        ("EU_CENTRAL_1", Some("eu-central-1")),
        ("us-east-2", Some("us-east-1")),
        ("mars", None),
        ("", None),
    ] {
        let error = Region::builtin(typed).unwrap_err();
        let RegionError::Unknown { nearest, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*nearest, meant, "{typed}");
        let text = error.to_string();
        assert!(
            Region::builtin_names().all(|name| text.contains(name)),
            "{text}"
        );
    }
}

#[test]
fn http_is_for_loopback_or_for_those_who_ask() {
    for url in [
        "http://127.0.0.1:80/eu",
        "http://127.9.9.9",
        "http://[::1]:8080",
        "http://localhost",
    ] {
        assert!(
            !Region::new("sim", url, false).unwrap().is_insecure(),
            "{url}"
        );
    }
    for url in [
        "http://api.agora.io",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
    ] {
        let error = Region::new("sim", url, false).unwrap_err();
        assert!(error.to_string().contains("loopback"), "{error}");
        assert!(
            Region::new("sim", url, true).unwrap().is_insecure(),
            "{url}"
        );
    }
    assert!(
        !Region::new("eu", "https://10.0.0.1", true)
            .unwrap()
            .is_insecure()
    );
}

#[test]
fn odd_names_and_urls_are_refused_without_repeating_a_secret() {
    for name in ["", "a.b", "a b", "eu\n", &"x".repeat(65)] {
        assert!(
            matches!(
                Region::new(name, "https://api.agora.io", false),
                Err(RegionError::Name(_))
            ),
            "{name:?}"
        );
    }
    for url in [
        "",
        "api.agora.io",
        "ftp://api.agora.io",
        "https://user:canary@api.agora.io",
        "https://canary@api.agora.io",
        "https://api.agora.io/?canary",
        "https://api.agora.io/#canary",
        "https://api.agora.io/dev/v2/project/canary",
    ] {
        let error = Region::new("eu", url, false).unwrap_err();
        assert!(matches!(error, RegionError::BaseUrl { .. }), "{url}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
    }
}

#[test]
fn streams_read_back_what_they_print() {
    for stream in Stream::ALL {
        assert_eq!(stream.to_string().parse(), Ok(stream));
    }
    assert!("User".parse::<Stream>().is_err());
    assert!("".parse::<Stream>().is_err());
}
