//! The calibration methods. One line each.

use kd_runtime::nearest::nearest;
use kd_runtime::{Refusal, Result};

use super::{Method, minmax, percentile};

/// Every method that `--calibration` can name.
pub static METHODS: &[Method] = &[
    Method { name: "minmax", about: "all values that were seen", passes: 1, new: minmax::new },
    Method {
        name: "percentile",
        about: "99.999 % of the values, where the rounding gained outweighs the values cut",
        passes: 2,
        new: percentile::new,
    },
];

/// The method of a name.
pub fn find(name: &str) -> Result<&'static Method> {
    METHODS.iter().find(|method| method.name == name).ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        let action = match nearest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "choose one of them".into(),
        };
        Refusal::new("--calibration", names.join(" or "), format!("`{name}`"), action)
    })
}
