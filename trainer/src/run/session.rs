//! All networks of a recipe: teachers, students and baselines of all seeds, and what they prove.
