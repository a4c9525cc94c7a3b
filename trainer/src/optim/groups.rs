//! Parameter groups: learning rate and decay by the names of parameters.

use super::Rule;
use crate::exec::{Parameter, Role};

/// An entry of `train.groups`: what holds for the parameters that it matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Of names: `*` stands for any letters (also none), `?` for any one.
    pub pattern: String,
    /// Times the learning rate.
    pub lr_factor: f64,
    /// Instead of the optimizer's; none: as without the group.
    pub weight_decay: Option<f64>,
    /// Whether they stay as they are.
    pub frozen: bool,
}

/// How each parameter is stepped: by the first group that matches its name, else by the optimizer's own numbers.
/// `decay_norm_and_bias`: whether weight decay also acts on [`Role::BiasOrNorm`] where no group says otherwise.
pub fn rules(parameters: &[Parameter<f32>], groups: &[Group], decay_norm_and_bias: bool) -> Vec<Rule> {
    let rule = |p: &Parameter<f32>| {
        let group = groups.iter().find(|group| matches(&group.pattern, &p.name));
        let spared = p.role == Role::BiasOrNorm && !decay_norm_and_bias;
        Rule {
            is_stepped: p.role.is_trained() && group.is_none_or(|group| !group.frozen),
            lr_factor: group.map_or(1.0, |group| group.lr_factor),
            weight_decay: group.and_then(|group| group.weight_decay).or(spared.then_some(0.0)),
        }
    };
    parameters.iter().map(rule).collect()
}

/// Whether a pattern matches a whole name.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last `*` stands, and how far it reaches: going back to it alone keeps this linear in both lengths' product.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        #[rustfmt::skip]
        let cases = [
            ("stage1*", "stage1.0.weight", true), ("stage1*", "stage1", true), ("stage1*", "xstage1", false),
            ("*", "", true), ("*.weight", "a.weight.bias", false), ("*.weight", "a.weight.weight", true),
            ("a?c*", "abc", true), ("a?c", "ac", false), ("*a*b*", "xaxxb", true), ("*a*b*", "xbxxa", false),
            ("", "", true), ("", "a", false), ("**", "é", true), ("?", "é", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(64), &"a".repeat(40)), "and does not take forever");
    }
}
