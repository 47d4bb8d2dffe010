//! How a budget of polls is divided among rings. Pure arithmetic: the reasons are in the documentation of
//! [`Schedule`](super::Schedule).

/// What one ring asks for and gets, in polls per second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Claim {
    /// More is waiting there than one page.
    pub(super) draining: bool,
    /// The least that is safe.
    pub(super) least: f64,
    /// The square root of its arrival rate, in any unit.
    pub(super) root: f64,
    /// What it gets.
    pub(super) share: f64,
}

/// Divides `budget`, which is at least twice what all get at `floor`, the least of any claim.
///
/// Rings that drain share all that the others do not need, half of the budget at least. If none drains, what is left
/// above the least is spent where it makes events fresher: by square roots.
pub(super) fn divide(claims: &mut [Claim], budget: f64, floor: f64) {
    let draining = claims.iter().filter(|claim| claim.draining).count();
    let others = claims.iter().filter(|claim| !claim.draining);
    let needed: f64 = others.map(|claim| claim.least).sum();
    if draining == 0 && needed < budget {
        by_square_roots(claims, budget);
        return;
    }
    let others = if draining == 0 { budget } else { budget / 2.0 }.min(needed);
    // More is needed than there is: everyone keeps the floor, and gets the same part of the rest.
    let floors = floor * (claims.len() - draining) as f64;
    let part = if needed > others {
        (others - floors) / (needed - floors)
    } else {
        1.0
    };
    for claim in claims {
        claim.share = if claim.draining {
            (budget - others) / draining as f64
        } else {
            floor + (claim.least - floor) * part
        };
    }
}

/// In proportion to the roots, save for those whose least is more than that: they get it first.
fn by_square_roots(claims: &mut [Claim], budget: f64) {
    if claims.iter().all(|claim| claim.root <= 0.0) {
        claims.iter_mut().for_each(|claim| claim.root = 1.0);
    }
    let mut per_root = f64::INFINITY;
    loop {
        // Each round can only lower what a root gets, and so the number of those that it is enough for.
        let (mut left, mut roots) = (budget, 0.0);
        for claim in claims.iter() {
            if claim.root * per_root > claim.least {
                roots += claim.root;
            } else {
                left -= claim.least;
            }
        }
        let lower = if roots > 0.0 { left / roots } else { 0.0 };
        if lower >= per_root {
            break;
        }
        per_root = lower;
    }
    for claim in claims {
        claim.share = claim.least.max(claim.root * per_root);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn divided(claims: &[(bool, f64, f64)], budget: f64, floor: f64) -> Vec<f64> {
        let mut claims: Vec<Claim> = claims
            .iter()
            .map(|&(draining, least, root)| Claim {
                draining,
                least: least.max(floor),
                root,
                share: 0.0,
            })
            .collect();
        divide(&mut claims, budget, floor);
        claims.iter().map(|claim| claim.share).collect()
    }

    #[test]
    fn by_example() {
        // Nothing known; then 100:1; then with a least that is more than the root's.
        let nothing = divided(&[(false, 0.0, 0.0); 4], 10.0, 0.5);
        assert_eq!(nothing, [2.5; 4]);
        let roots = divided(&[(false, 0.0, 10.0), (false, 0.0, 1.0)], 11.0, 0.5);
        assert_eq!(roots, [10.0, 1.0]);
        let least = divided(&[(false, 0.0, 10.0), (false, 2.0, 1.0)], 11.0, 0.5);
        assert_eq!(least, [9.0, 2.0]);
        // One drains; then more is needed than there is, with and without.
        let drain = divided(&[(true, 9.0, 1.0), (false, 1.0, 9.0)], 10.0, 0.5);
        assert_eq!(drain, [9.0, 1.0]);
        let drain = divided(
            &[(true, 9.0, 1.0), (false, 9.5, 1.0), (false, 0.5, 1.0)],
            10.0,
            0.5,
        );
        assert_eq!(drain, [5.0, 4.5, 0.5]);
        let over = divided(&[(false, 20.5, 1.0), (false, 0.5, 1.0)], 10.0, 0.5);
        assert_eq!(over, [9.5, 0.5]);
    }

    proptest! {
        /// Holds: the whole budget is given away and no more, and nobody gets less than the floor; nobody gets less than
        /// is safe as long as there is enough for all, and those that drain get half of it at least.
        #[test]
        fn nothing_is_wasted_and_nobody_starves(
            claims in prop::collection::vec((any::<bool>(), 0.0..20.0, 0.0..1_000.0), 1..64),
        ) {
            let budget = 10.0;
            let floor = budget / 2.0 / claims.len() as f64;
            let shares = divided(&claims, budget, floor);
            prop_assert!((shares.iter().sum::<f64>() - budget).abs() < 1e-6);
            let needed: f64 = (claims.iter())
                .filter(|claim| !claim.0).map(|claim| claim.1.max(floor)).sum();
            let draining: f64 = (claims.iter().zip(&shares))
                .filter(|(claim, _)| claim.0).map(|(_, share)| share).sum();
            prop_assert!(draining == 0.0 || draining >= budget / 2.0 - 1e-6);
            let enough = needed <= if draining > 0.0 { budget / 2.0 } else { budget };
            for (claim, share) in claims.iter().zip(&shares) {
                prop_assert!(*share >= floor - 1e-6, "{share}");
                prop_assert!(claim.0 || !enough || *share >= claim.1 - 1e-6, "{share} of {}", claim.1);
            }
        }
    }
}
