"""Texts of other languages in Latin letters are left out and counted; English ones are read."""

import pytest

from isentropic.prompts.load import load_prompts
from isentropic.prompts.swap.language import foreign_language
from isentropic.prompts.swap.swap import detect, swap

FOREIGN = {
    "Spanish": ["He visto a la doctora", "He dicho que no", "Ella es ingeniera", "Has visto al hombre", "Her mano no es la mía"],
    "Danish": ["Her er en læge", "Her bor en bager", "Kom her nu", "Hendes mor er her", "Min far har en søn"],
    "Norwegian": ["Her bor legen", "Hun er sykepleier", "Her kommer bussen med min mor"],
    "Swedish": ["Hon är läkare", "Man måste arbeta", "Hennes man är här"],
    "German": ["Man sieht die Frau", "Er kam her", "Man muss arbeiten", "Die Mutter von Anna ist müde"],
    "Dutch": ["De man kocht brood", "Zij is arts", "Jan heeft her en der gewerkt"],
    "French": ["Jean est médecin", "Son mari est parti", "Paul et Marie mangent avec leur père"],
    "Catalan": ["He vist la doctora", "He anat al mercat", "He menjat amb la meva germana"],
    "Italian": ["Andrea lavora molto con Maria", "Ho visto la dottoressa", "Maria ha detto che suo fratello è qui"],
    "Portuguese": ["Ela é médica", "O homem comprou pão", "Maria disse que o irmão dela"],
    "Finnish": ["He ovat kotona", "He eivät ole lääkäreitä mutta hän on"],
    "Polish": ["Adam jest lekarzem", "Anna i Adam nie są w domu"],
    "Afrikaans": ["Sy man is by die werk en hy slaap"],
}  # fmt: skip
ENGLISH = [
    "Her man.", "She", "Her hat was red", "No man is an island", "Men met her", "Mom!", "The actress", "waiter", "Queen Elizabeth",
    "Los Angeles is her home", "Maria de la Cruz said he ran", "Vincent van Gogh cut off his ear", "He sang 'La vie en rose'",
    "Her son has a gift for art", "Harry von Meter was an American actor who", "She ordered pan con tomate and a sangria",
    "La La Land made him cry", "Dear Mr. da Silva, thank you for", "Ms. Del Rey sings to him", "Die, he said.", "HE IS A NURSE. HE",
    "She drove 15 m/s", "Don Juan met her in El Paso", "Ask her.", "Girl power", "My sister Ella is tired of him",
]  # fmt: skip


@pytest.mark.parametrize(
    ("language", "text"), [(name, text) for name, texts in FOREIGN.items() for text in texts]
)
def test_another_language_is_not_read(language, text):
    assert foreign_language(text), language
    assert detect(text).group == "none"
    assert swap(text).flagged.startswith("language: ") and swap(text).text == text


@pytest.mark.parametrize("text", ENGLISH)
def test_english_is_read(text):
    assert foreign_language(text) is None


def test_other_languages_are_left_out_and_counted():
    english = [{"text": f"{who} has {n} pens"} for n in range(9) for who in ("He", "She")]
    rows = english + [{"text": text} for texts in FOREIGN.values() for text in texts]
    foreign = len(rows) - len(english)
    notes = load_prompts(rows).notes
    assert any(note.startswith(f"{foreign} texts with none, in another language") for note in notes)
    named = [row | {"gender": "male" if "He " in row["text"] else "female"} for row in rows]
    prompts = load_prompts(named, swap=True)
    assert any(note.startswith(f"{foreign} left out by the swap (language)") for note in prompts.notes)
    assert len(prompts.tuples()) == 9  # each of the 18 is the twin of another
