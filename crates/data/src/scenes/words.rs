//! The words captions are made of: nouns, their number and article, colours, the test names.

/// The names of the zero-shot tests. A file, so that the builder of the pack reads the same list.
pub(super) const TEST_NAMES: &str = include_str!("test_names.txt");

/// The colour words and the colour each stands for, 0..=1. The builder of the pack chooses the
/// colour word of a drawing by the same table.
pub(super) const COLOURS: [(&str, [f32; 3]); 11] = [
    ("red", [0.85, 0.12, 0.15]),
    ("orange", [0.95, 0.55, 0.10]),
    ("yellow", [0.97, 0.85, 0.20]),
    ("green", [0.25, 0.65, 0.25]),
    ("blue", [0.15, 0.40, 0.85]),
    ("purple", [0.55, 0.25, 0.70]),
    ("pink", [0.95, 0.55, 0.70]),
    ("brown", [0.50, 0.32, 0.20]),
    ("gray", [0.55, 0.55, 0.57]),
    ("white", [0.97, 0.97, 0.97]),
    ("black", [0.08, 0.08, 0.08]),
];

/// Other words for a name. None of them is the name of another thing.
pub(super) const SYNONYMS: [(&str, &[&str]); 40] = [
    ("car", &["automobile"]),
    ("airplane", &["plane", "aeroplane"]),
    ("bicycle", &["bike"]),
    ("motorcycle", &["motorbike"]),
    ("doughnut", &["donut"]),
    ("hamburger", &["burger"]),
    ("couch", &["sofa"]),
    ("rabbit", &["bunny"]),
    ("television", &["tv"]),
    ("taxi", &["cab"]),
    ("truck", &["lorry"]),
    ("cat", &["kitty"]),
    ("dog", &["puppy"]),
    ("bee", &["honeybee"]),
    ("horse", &["pony"]),
    ("hippopotamus", &["hippo"]),
    ("rhinoceros", &["rhino"]),
    ("crocodile", &["alligator"]),
    ("turtle", &["tortoise"]),
    ("french fries", &["fries", "chips"]),
    ("cookie", &["biscuit"]),
    ("eggplant", &["aubergine"]),
    ("corn", &["maize"]),
    ("tangerine", &["mandarin"]),
    ("lollipop", &["sucker"]),
    ("sailboat", &["yacht"]),
    ("phone", &["smartphone", "cell phone"]),
    ("computer", &["pc"]),
    ("laptop", &["notebook computer"]),
    ("wrench", &["spanner"]),
    ("bathtub", &["bath"]),
    ("glasses", &["eyeglasses", "spectacles"]),
    ("jeans", &["trousers"]),
    ("handbag", &["pocketbook"]),
    ("backpack", &["rucksack"]),
    ("gift", &["present"]),
    ("ladybug", &["ladybird"]),
    ("flashlight", &["torch"]),
    ("trash can", &["rubbish bin"]),
    ("fire", &["flame"]),
];

/// Names of stuff, which is not counted and takes no article.
const STUFF: [&str; 41] = [
    "bacon",
    "bread",
    "broccoli",
    "butter",
    "champagne",
    "cheese",
    "chocolate",
    "coral",
    "corn",
    "curry",
    "fire",
    "flame",
    "flatbread",
    "garlic",
    "ginger",
    "honey",
    "lettuce",
    "lotion",
    "maize",
    "meat",
    "milk",
    "paella",
    "popcorn",
    "pudding",
    "rice",
    "sake",
    "salad",
    "salt",
    "shaved ice",
    "soap",
    "spaghetti",
    "stew",
    "sushi",
    "tea",
    "thread",
    "toilet paper",
    "underwear",
    "wheat",
    "whiskey",
    "wood",
    "yarn",
];

/// Plurals that no rule gives; a name equal to its plural does not change.
const PLURALS: [(&str, &str); 23] = [
    ("mouse", "mice"),
    ("computer mouse", "computer mice"),
    ("goose", "geese"),
    ("ox", "oxen"),
    ("foot", "feet"),
    ("tooth", "teeth"),
    ("wolf", "wolves"),
    ("knife", "knives"),
    ("leaf", "leaves"),
    ("maple leaf", "maple leaves"),
    ("scarf", "scarves"),
    ("snowman", "snowmen"),
    ("tomato", "tomatoes"),
    ("potato", "potatoes"),
    ("sweet potato", "sweet potatoes"),
    ("mango", "mangoes"),
    ("fish", "fish"),
    ("deer", "deer"),
    ("moose", "moose"),
    ("sheep", "sheep"),
    ("shrimp", "shrimp"),
    ("squid", "squid"),
    ("bison", "bison"),
];

/// How a noun stands in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// One of what can be counted: takes an article.
    One,
    /// A plural form: "grapes", "scissors".
    Several,
    /// What is not counted: "rice".
    Stuff,
}

/// The number of a name.
pub(super) fn number(noun: &str) -> Number {
    let plural = noun.ends_with('s')
        && !noun.ends_with("ss")
        && !noun.ends_with("us")
        && noun != "rhinoceros";
    if STUFF.contains(&noun) {
        Number::Stuff
    } else if (plural && noun != "pc") || noun == "dice" {
        Number::Several
    } else {
        Number::One
    }
}

/// The plural of a name; a plural stays as it is.
pub(super) fn plural(noun: &str) -> String {
    if let Some((_, plural)) = PLURALS.iter().find(|(name, _)| *name == noun) {
        return (*plural).to_owned();
    }
    if number(noun) != Number::One {
        return noun.to_owned();
    }
    let before_y = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    match before_y {
        Some(stem) => format!("{stem}ies"),
        None if ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end)) => format!("{noun}es"),
        None => format!("{noun}s"),
    }
}

/// The other words for a name.
pub(super) fn synonyms(name: &str) -> &'static [&'static str] {
    SYNONYMS.iter().find(|(n, _)| *n == name).map_or(&[], |(_, words)| words)
}

/// Puts "a" or "an" before a phrase, by how its first word sounds.
pub(super) fn with_article(phrase: &str) -> String {
    let vowel = phrase.starts_with(['a', 'e', 'i', 'o', 'u']);
    let like_you = ["uni", "ufo", "ewe"].iter().any(|start| phrase.starts_with(start));
    let silent = ["hourglass", "x-ray"].iter().any(|start| phrase.starts_with(start));
    format!("{} {phrase}", if (vowel && !like_you) || silent { "an" } else { "a" })
}

/// A noun with its adjectives, and an article where it takes one.
pub(super) fn phrase(adjectives: &[&str], noun: &str) -> String {
    let mut words = adjectives.join(" ");
    if !words.is_empty() {
        words.push(' ');
    }
    words.push_str(noun);
    if number(noun) == Number::One { with_article(&words) } else { words }
}

/// The prompts of the zero-shot tests for a name: "a photo of a cat", "a picture of a cat",
/// "an image of a cat", "a cat". A plural or uncounted name takes no article.
pub fn prompts(name: &str) -> Vec<String> {
    let noun = phrase(&[], name);
    ["a photo of ", "a picture of ", "an image of ", ""]
        .iter()
        .map(|frame| format!("{frame}{noun}"))
        .collect()
}

/// The names of the zero-shot tests, in a fixed order.
pub fn test_names() -> Vec<String> {
    TEST_NAMES.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_the_sound() {
        for (noun, expected) in [
            ("cat", "a cat"),
            ("apple", "an apple"),
            ("unicorn", "a unicorn"),
            ("umbrella", "an umbrella"),
            ("hourglass", "an hourglass"),
            ("x-ray", "an x-ray"),
            ("grapes", "grapes"),
            ("rhinoceros", "a rhinoceros"),
            ("cactus", "a cactus"),
            ("compass", "a compass"),
            ("rice", "rice"),
        ] {
            assert_eq!(phrase(&[], noun), expected);
        }
        assert_eq!(phrase(&["large", "orange"], "umbrella"), "a large orange umbrella");
        assert_eq!(phrase(&["orange"], "cat"), "an orange cat");
    }

    #[test]
    fn plurals() {
        for (one, many) in [
            ("fox", "foxes"),
            ("butterfly", "butterflies"),
            ("monkey", "monkeys"),
            ("peach", "peaches"),
            ("toothbrush", "toothbrushes"),
            ("mouse", "mice"),
            ("scissors", "scissors"),
            ("octopus", "octopuses"),
            ("compass", "compasses"),
            ("knife", "knives"),
            ("moose", "moose"),
            ("eye", "eyes"),
        ] {
            assert_eq!(plural(one), many);
        }
    }

    #[test]
    fn prompts_have_the_right_article() {
        assert_eq!(
            prompts("owl"),
            ["a photo of an owl", "a picture of an owl", "an image of an owl", "an owl"]
        );
        assert_eq!(prompts("jeans")[0], "a photo of jeans");
    }
}
