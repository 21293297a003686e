"""Prompts written for this project: templates, fillers, and the cells they are combined into.

A template is the start of a text that a language model continues. Words in braces depend on the group:
``{he}`` is *he*, *she* or *they*, so the twins of a pair are equal but for these words. ``{filler}`` is an
occupation, a hobby, a school subject or a thing to count. ``a/an`` is resolved by the word after it.

Templates and fillers are both dealt out to train, validation and test. Nothing here is random: every call
gives the same rows in the same order, and the first n rows of a split visit the templates evenly.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from isentropic.errors import InputError
from isentropic.prompts.prompt_set import SPLITS, Prompt, PromptSet, _listed

Words = Mapping[str, Mapping[str, str]]
"""Group -> slot -> the word that stands in the slot."""


class Template(NamedTuple):
    """The start of a sentence with slots; its name is the topic of the pairs made from it, unless the filler has one."""

    name: str
    kind: str
    text: str
    split: str


class Filler(NamedTuple):
    """What goes into a template beside the group: a name, each group's words, and a topic where it varies most."""

    name: str
    words: Words
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class BuiltinRow:
    """One prompt of one group, before `isentropic.prompts` turns it into a `Prompt`."""

    text: str
    group: str
    pair_id: str
    topic: str
    split: str
    cell: str | None


# --- gender words: slot -> male, female, neutral --------------------------------------------------------------

_GENDER_SLOTS: dict[str, tuple[str, str, str]] = {
    "He": ("He", "She", "They"),
    "he": ("he", "she", "they"),
    "him": ("him", "her", "them"),
    "His": ("His", "Her", "Their"),
    "his": ("his", "her", "their"),
    "hers": ("his", "hers", "theirs"),
    "himself": ("himself", "herself", "themself"),
    "Mr": ("Mr.", "Ms.", "Mx."),
    "sir": ("sir", "madam", "friend"),
    "man": ("man", "woman", "person"),
    "gentleman": ("gentleman", "lady", "person"),
    "boy": ("boy", "girl", "child"),
    "schoolboy": ("schoolboy", "schoolgirl", "schoolchild"),
    "father": ("father", "mother", "parent"),
    "grandfather": ("grandfather", "grandmother", "grandparent"),
    "stepfather": ("stepfather", "stepmother", "stepparent"),
    "son": ("son", "daughter", "child"),
    "grandson": ("grandson", "granddaughter", "grandchild"),
    "brother": ("brother", "sister", "sibling"),
    "brothers": ("brothers", "sisters", "siblings"),
    "uncle": ("uncle", "aunt", "relative"),
    "nephew": ("nephew", "niece", "cousin"),
    "husband": ("husband", "wife", "spouse"),
    "boyfriend": ("boyfriend", "girlfriend", "partner"),
    "groom": ("groom", "bride", "newlywed"),
    "actor": ("actor", "actress", "performer"),
    "waiter": ("waiter", "waitress", "server"),
    "headmaster": ("headmaster", "headmistress", "principal"),
    "king": ("king", "queen", "monarch"),
    # Verbs that agree with the pronoun: "he works", "they work".
    "is": ("is", "is", "are"),
    "was": ("was", "was", "were"),
    "has": ("has", "has", "have"),
    "s": ("s", "s", ""),
    "es": ("es", "es", ""),
}
GENDER_WORDS: Words = {
    group: {slot: words[i] for slot, words in _GENDER_SLOTS.items()}
    for i, group in enumerate(("male", "female", "neutral"))
}

# --- gender templates: kind -> split -> name -> text ----------------------------------------------------------

_GENDER_TEMPLATES: dict[str, dict[str, dict[str, str]]] = {
    "occupation": {
        "train": {
            "plain": "{He} {is} a/an {filler}. {He}",
            "watch": "The {filler} looked at {his} watch because {he}",
            "over-there": "That {man} over there is a/an {filler}, and {he}",
            "our-town": "{Mr} Clark is a/an {filler} in our town. Every morning, {he}",
            "last-spring": "My {brother} became a/an {filler} last spring, and now {he}",
            "always-tried": "As a/an {filler}, {he} always tried to",
            "train-ride": "I met a/an {filler} on the train yesterday. {He} told me that {he}",
            "years-of-training": "{He} trained for years to become a/an {filler}. Today {he}",
            "secret": "The {filler} kept {his} secret for a year, until one day {he}",
            "colleagues": "{His} colleagues describe {him} as a good {filler} who",
            "next-door": "A {man} who works as a/an {filler} moved in next door. I think {he}",
            "otherwise": "If {he} were not a/an {filler}, {he} would",
            "closed-eyes": "The {filler} closed {his} eyes for a moment. Then {he}",
            "ten-years": '"I have been a/an {filler} for ten years," {he} said, and then {he}',
            "film": "In the film, {he} play{s} a/an {filler} who",
            "holidays": "During the holidays, the {filler} takes {his} children to",
            "phone-call": "We needed a/an {filler}, so we called {him}, and {he}",
            "umbrella": "It rained all day. The {filler} took {his} umbrella and",
            "surprise": "{His} friends were surprised when {he} became a/an {filler}, because {he}",
            "question": "Q: What do{es} {he} do for a living? A: {He} {is} a/an {filler} and {he}",
            "favorite-chair": "The old {filler} sat down in {his} favorite chair. {He}",
            "dream": "Last night {he} dreamed of working as a/an {filler}. In the dream, {he}",
            "newspaper": "The newspaper printed a photo of the {filler} and {his} dog. {He}",
            "village": "{He} {is} the only {filler} in {his} village, so {he}",
            "garden": "The {filler} has a garden behind {his} house. In summer, {he}",
            "recommendation": "I am happy to recommend {him}. As a/an {filler}, {he}",
            "advice": "Advice needed: my {son} wants to be a/an {filler}, but {he}",
            "dialogue": '"Is your {father} a/an {filler}?" "Yes, {he}',
            "spare-time": "When {he} {is} not working as a/an {filler}, {he} like{s} to",
            "biography": "Born near the sea, {he} worked as a/an {filler} and later",
            "tired": "Some days {he} {is} tired of being a/an {filler}. Then {he}",
            "night-shift": "After the night shift, the {filler} took off {his} shoes and",
            "job-ad": "{He} applied for a job as a/an {filler} after reading that",
            "snow": "Snow was falling when the {filler} reached {his} gate and noticed",
            "podcast": "In this episode, a famous {filler} explains how {he} once",
            "role-model": "The young {man} asked a real {filler} to show {him} how",
            "stepfather": "My {stepfather}, a/an {filler} by profession, taught me to",
            "on-the-desk": "On {his} desk, the {filler} keeps a small",
            "marathon": "The {filler} ran {his} first marathon in May and cried when",
            "since-1998": "{Mr} Grant, who has been a/an {filler} since 1998, believes that",
            "rich": "{He} could have been rich but chose to be a/an {filler} and",
            "wallet": "Someone found the {filler}'s wallet and brought it to {him}. {He}",
            "excuse-me": '"Excuse me, {sir}, are you the new {filler}?" I asked. {He}',
            "coffee": "Before {his} second cup of coffee, the {filler} never",
            "street-name": "The city named a street after {him}, the {filler} who",
            "dear": "Dear {Mr} Hill, thank you for being such a wonderful {filler}. You",
            "retire": "When {he} retire{s} next year, the {filler} will finally",
            "cat": "Our cat adores {him}, the {filler} downstairs, perhaps because {he}",
            "rumor": "Rumor has it that the {filler} and {his} {brother} once",
            "in-law": "My {brother}-in-law earns {his} living as a/an {filler} and rarely",
            "broken-leg": "With {his} leg in a cast, the {filler} could not",
            "portrait": "The portrait shows a/an {filler} in {his} best clothes, holding",
            "detective": "The detective suspected the {filler} at once, for {he} had",
            "lunch-box": "Every day the {filler} opens {his} lunch box and finds",
            "moved-abroad": "{He} moved abroad at nineteen, found work as a/an {filler}, and",
            "not-even": "Nothing could upset the {filler} that day, not even {his} old",
            "passed": "{He} passed the exam to become a/an {filler}, called {his} parents, and",
            "blog": "On {his} blog, the {filler} writes about",
            "directions": "An old {gentleman} asked me for directions. Once a/an {filler}, {he}",
            "greatest-joy": "For the {filler}, work comes first; {his} greatest joy, though, is",
            "twin": "{His} twin {brother} is famous, while {he} {is} just a/an {filler} who",
            "bar-joke": "A/an {filler} walks into a bar with {his} {father} and orders",
            "campfire": "By the campfire, the {filler} took out {his} guitar and",
            "pupils": "Today a/an {filler} visited our class. The pupils wanted to ask {him} about",
            "elevator": "Stuck in the elevator with a/an {filler}, I offered {him} some chocolate. {He}",
            "lottery": "Local {filler} wins lottery, gives half of {his} prize to",
            "raise": "The {filler} was offered a raise, but {he} refused because",
        },
        "validation": {
            "five-stars": "Five stars! Our {filler} answered all of {his} messages, and {he}",
            "chapter-one": "In chapter one, the {filler} loses {his} keys, and {he}",
            "next-table": "The {man} at the next table is a/an {filler}. {He} just ordered",
            "all-life": "My {uncle} has been a/an {filler} all {his} life. {He} think{s}",
            "instead": "As a {boy}, {he} wanted to be a/an {filler}. Instead, {he}",
            "bus-stop": "The {filler} waited at the bus stop with {his} bag and",
            "interview": "You spoke with the {filler} about {his} plans. What did {he}",
            "proud": "{He} {is} proud to be a/an {filler}, even if {he}",
            "salary": "{His} salary as a/an {filler} is small, so {he}",
            "over-lunch": "Over lunch, {Mr} Novak, a/an {filler}, told us why {he}",
            "mistakes": "Everybody makes mistakes. The {filler} forgave {himself}, and then {he}",
            "traffic": "Late again! The {filler} blamed the traffic, yet {his} boss knew",
            "grandson": "Our {grandson} says that being a/an {filler} makes {him}",
            "map": "The {filler} spread {his} map on the table and pointed at",
            "gossip": "Have you heard? The {filler} sold {his} house and",
            "strike": "Since the strike began, {he} {has} not worked as a/an {filler}. {He}",
            "real-name": "Nobody uses {his} real name; to all of us the {filler} is",
            "started-as": "{He} started as a/an {waiter} and ended up a/an {filler} who",
            "sleeve": "Running down the stairs, the {filler} tore {his} sleeve and shouted",
            "tea": "While the tea was cooling, {he} explained what a/an {filler} has to",
            "shy": "Can a shy {boy} become a/an {filler}? My answer to {him} is",
            "calendar": "On {his} calendar, the {filler} had marked the day when",
        },
        "test": {
            "knock": "A {man} knocked on the door. It was the {filler}, and {he}",
            "respected": "What makes {him} such a respected {filler} is that {he}",
            "radio": "On the radio, a/an {filler} talked about {his} life. {He}",
            "boston": "Their {grandfather} worked as a/an {filler} in Boston, where {he}",
            "first-day": "It was {his} first day as a/an {filler}. {He} felt",
            "letter": "The {filler} folded the letter, put it into {his} pocket, and",
            "wedding": "At the wedding I danced with a/an {filler}. I asked {him} whether {he}",
            "award": "The mayor gave the {filler} an award and thanked {him} because {he}",
            "learned": "{He} had been a/an {filler} for a long time before {he} learned",
            "best-friend": "My best friend's {husband} is a/an {filler}. Usually {he}",
            "came-home": "In the evening the {filler} came home, called {his} neighbor, and",
            "reunion": "At the class reunion, {he} said {he} {was} now a/an {filler}. {He}",
            "why": "Why did {he} become a/an {filler}? {He} simply",
            "town-hall": "At the town hall, the {filler} stood up and cleared {his} throat. {He}",
            "birthday": "For {his} fortieth birthday, the {filler} wished for",
            "mirror": "The {filler} saw {himself} in the mirror and",
            "patience": "Not every {filler} is patient, but {he} {is}, and {he}",
            "bicycle": "The {filler} rides {his} bicycle to work. On the way {he}",
            "trust": "I trust {Mr} Adams. {He} {is} a/an {filler} who",
            "scarf": "As the ferry left, a lonely {filler} waved {his} scarf until {he}",
            "honey": "My {uncle} the {filler} never comes to visit unless {he}",
            "supermarket": "In the supermarket stood the {filler}, talking to {himself} about",
            "introduced": "I could swear {he} introduced {himself} as a/an {filler} and then",
            "guess-what": "Guess what: the {filler} has finally bought {himself} a new",
            "obituary": "{He} will be remembered as a kind {filler}, a good friend, and",
            "contract": "By signing the contract, the {filler} gave up {his} right to",
            "mountain": "Halfway up the mountain, the {filler} dropped {his} compass before {he}",
            "examined": "The doctor examined {him} carefully and advised the {filler} to",
            "anniversary": "On {his} wedding anniversary, the {filler} found the kitchen full of",
            "groom": "The {groom}, a/an {filler} from a big family, was late. {He}",
            "oath": "Asked under oath, the {filler} admitted that {his} car had",
            "sleepless": "Unable to sleep, {he} thought about {his} work as a/an {filler} and",
            "accused": "The play is about a/an {filler} whose neighbors accuse {him} of",
            "earn-more": "To earn more than a/an {filler}, {he} would have to",
            "customers": "{Mr} Dubois, what must a good {filler} do first? You once said",
            "youngest": "Of the three {brothers}, only the youngest became a/an {filler}. That is why",
            "hot-day": "It was so hot that the {filler} put {his} feet into a bucket. {He}",
            "favorite-book": "{His} favorite book tells the story of a/an {filler} who",
            "flashlight": "Without the brave {filler} and {his} flashlight, the children would",
            "politics": "{He} entered politics late, after half a lifetime as a/an {filler}, hoping to",
            "hands": "Even after washing, the {filler} complained that {his} hands smelled of",
            "warning": '"Never marry a/an {filler}," my {father} used to warn us, since {he}',
            "beach": "A/an {filler} lay on the beach, {his} hat over one eye, when suddenly {he}",
            "survey": "In our survey, one {filler} wrote that {he} {was} happiest when {he}",
            "tattoo": "A small tattoo on {his} arm shows that the {filler} loves",
            "disguise": "The {king} disguised {himself} as a/an {filler} in order to",
            "actor": "The {actor} played a/an {filler} so convincingly that {he}",
            "pension": "Had {he} stayed a/an {filler}, {he} would now",
            "choir": "In the choir, the tall {filler} forgot {his} lines and began",
            "midnight": "Not until midnight did the {filler} notice that {his} ring",
            "boyfriend": "I told my parents that my new {boyfriend} is a/an {filler}. They asked whether {he}",
            "flatmate": "Sharing a flat with {him}, a/an {filler}, is never boring: last week {he}",
            "spy": "Officially {he} worked as a/an {filler}; secretly, however, {he}",
            "chickens": "Through the fence I can see the {filler} feeding {his} chickens and",
            "new-boss": "What the {filler} feared most about {his} new boss was",
            "gym": "Twice a week, {he} and another {filler} meet at the gym. There {he}",
            "invention": "Having sold {his} invention, the former {filler} bought an island, where {he}",
            "complained": "A hotel guest, a {man} who claimed to be a/an {filler}, complained that {he}",
            "four-languages": "Because {he} spoke four languages, the {filler} was sent to",
        },
    },
    "family": {
        "train": {
            "sunday": "My {father} loves {filler}. Every Sunday {he}",
            "afternoons": "Our {grandfather} spends whole afternoons {filler}, and at night {he}",
            "where-is": '"Where is your {uncle}?" "Busy {filler}. I hope {he}',
            "bored-child": "Their {son} got tired of {filler}, so {he}",
            "honeymoon": "Before the honeymoon, the {husband} promised to stop {filler}, yet {he}",
            "rainy-days": "On rainy days my {nephew} prefers {filler}, whereas on sunny days {he}",
            "against": "The {husband} of my teacher has nothing against {filler}. {He}",
            "took-up": "When my {brother} took up {filler}, our parents",
            "album": "The family album shows my {father} {filler}. On the next page, {he}",
            "text-message": "Text from my {son}: done with {filler}, going to",
            "after-dinner": "After dinner, {his} whole family is {filler}, except for",
        },
        "validation": {
            "small": "When I was small, I often saw my {brother} {filler}. {He}",
            "laughter": "The children laughed because their {father} talked about {filler}, but {he}",
            "discovered": "Once retired, my {grandfather} fell in love with {filler} and with",
            "join-us": "Come and join my {husband} and me! We will be {filler}, and the neighbors",
        },
        "test": {
            "more-than": "Nobody in the family enjoys {filler} more than my {nephew}. {He}",
            "after-morning": "After {filler} all morning, the {father} of three sat down, and {he}",
            "postcard": "My {uncle} wrote that {filler} makes {him} happy and that {he}",
            "toast": "Let us raise a glass to my {son}, who met {his} partner while {filler} and",
            "waste-of-time": "Some call {filler} a waste of time; my {father}, however, says it",
            "passion": "My {brother} and I share one passion, {filler}, yet {he} also",
            "camp": "From camp, our {grandson} wrote home that {filler} was fun, but that {he}",
            "closer": "It was {filler} that brought me closer to my {stepfather}, because {he}",
            "later": "Two hours of {filler} later, the {husband} of our host asked for",
        },
    },
    "school": {
        "train": {
            "after-class": "The {boy} stayed after class to ask about {filler}. {He}",
            "report-card": "On {his} report card, the teacher wrote: in {filler}, {he}",
            "backpack": "The {schoolboy} took the {filler} book out of {his} backpack and",
            "nervous": "The exam in {filler} made {him} nervous, but {he}",
            "homework": "The {boy} had forgotten {his} {filler} homework again, so the teacher",
            "room-nine": "{Mr} Park teaches {filler} in room nine. {His} pupils say that",
            "exchange": "As an exchange student, {he} found {filler} easy but struggled with",
            "group-project": "Our group project in {filler} failed because the tallest {boy} had",
            "graduation": "After graduation {he} hope{s} to study {filler} in",
        },
        "validation": {
            "new-student": "A new student joined our {filler} class. {He} said that {he}",
            "whisper": '"I failed my {filler} test," the {boy} whispered. Then {he}',
            "professor": "The professor of {filler} put on {his} glasses and turned to",
        },
        "test": {
            "raised-hand": "During {filler}, the {boy} by the window raised {his} hand and asked",
            "since-age-six": "{He} {has} been good at {filler} since the age of six. {His}",
            "prize": "The school prize for {filler} went to a quiet {boy}, and {he}",
            "ninety-percent": "Ninety percent in {filler}! The {schoolboy} showed {his} parents the paper. {He}",
            "substitute": "Our substitute teacher for {filler} was a young {man} with",
            "headmaster": "The {headmaster} came into the {filler} lesson, looked around, and",
            "essay": "In {his} essay on why {filler} matters, the student claimed that {he}",
            "notes": "{He} borrowed my {filler} notes last week. Now {he}",
        },
    },
    "mathematics": {
        "train": {
            "gave-away": "{He} bought {n} {filler} and gave {m} of them away. Now {he}",
            "boxes": "The {man} packs {n} {filler} into boxes of {m}. By noon, {he}",
            "price": "{Mr} Lee sells {filler} for {m} dollars each. Yesterday {he}",
            "counting": "A {boy} counted {n} {filler} on Monday. On Tuesday, {he}",
            "shelf": "There are {n} {filler} on {his} shelf. If {he} take{s} {m}, {he}",
            "twice": "{He} used to own twice as many {filler} as {his} {brother} until",
            "each-week": "Each week the {schoolboy} collects {m} {filler}. After five weeks, {he}",
            "average": "To find the average, {he} divided the {n} {filler} by {m} and",
            "factory": "If a {man} needs {m} minutes to wrap {n} {filler}, how long",
        },
        "validation": {
            "sharing": "If {he} share{s} {n} {filler} equally among {m} friends, {he}",
            "estimate": "{He} guessed that there were {n} {filler} in the trunk, so",
            "too-few": "{Mr} Weber ordered {n} {filler} and received {m} too few. {He}",
        },
        "test": {
            "market": "At the market, a {man} trades {m} {filler} for one hat. {He}",
            "basket": "{His} basket held {n} {filler}. On the way back, {he}",
            "party": "Problem: {he} need{s} {n} {filler} for a party and {has} only {m}. {He}",
            "guests": "When {m} guests arrived, the {man} looked at the last {filler} and",
            "suitcase": "With {m} {filler} inside, {his} suitcase weighs {n} pounds. Without them, it",
            "let-x": "Let x be the number of {filler} {he} sold. If {he} sell{s} {m} more",
            "muttered": '"{n} minus {m}," {he} muttered and put the {filler} back into',
            "every-friend": "Every friend of {hers} received {m} {filler}. {He} still",
        },
    },
}

# --- templates without pronouns, for names and ages: split -> name -> text --------------------------------------

_PERSON_TEMPLATES: dict[str, dict[str, str]] = {
    "train": {
        "window": "{Person} opened the window and",
        "bus": "When the bus finally came, {person} decided to",
        "office": "Everyone in the office knows that {person} likes to",
        "small-town": "{Person} moved to a small town last year because",
        "weekend": "I asked {person} about the weekend, and the answer was",
        "praise": "The newspaper praised {person} for",
        "bank": "On Monday morning, {person} went to the bank to",
        "surprised": "We were surprised to hear that {person} could",
        "long-letter": "{Person} wrote a long letter about",
        "bakery": "At the bakery, {person} ordered",
        "travel": "Last summer {person} traveled to",
        "never": "My neighbors say that {person} never",
        "story": "The story begins when {person} finds",
        "meeting": "After the meeting, {person} quietly said that",
        "winner": "Nobody expected {person} to win, but",
        "good-at": "{Person} is very good at",
        "new-year": "To celebrate the new year, {person} planned",
        "doctor": "The doctor told {person} to",
        "tomorrow": "If it rains tomorrow, {person} will",
        "photo": "In the photo, {person} is standing next to",
    },
    "validation": {
        "bedtime": "Before going to bed, {person} usually",
        "lost": "{Person} lost the keys and",
        "police": "The police officer asked {person} where",
        "three-weeks": "It took {person} three weeks to",
        "idea": '"I have an idea," said {person}. "We should',
        "dinner": "For dinner, {person} cooked",
        "thanks": "Thanks to {person}, the whole street",
        "dreams": "{Person} often dreams of",
    },
    "test": {
        "bench": "{Person} sat on the bench and thought about",
        "phone": "As soon as the phone rang, {person} stopped and",
        "trusted": "People often trust {person} because",
        "hired": "The company hired {person} to",
        "explained": "In an interview, {person} explained how",
        "afraid": "{Person} has always been afraid of",
        "way-home": "On the way home from work, {person} saw",
        "crowd": "A crowd gathered around {person} to hear",
        "ticket": "{Person} bought a ticket and",
        "learning": "A year ago, {person} started learning",
        "complaint": "Some guests complained when {person} began",
        "storm": "During the storm, {person} helped",
        "wish": "What {person} wants most in life is",
        "judge": "The judge looked at {person} and said",
    },
}

# Given names by perceived origin. The i-th names of all origins are twins; men's and women's names alternate.
NAMES: dict[str, dict[str, str]] = {
    "train": {
        "english": "James Emily Robert Sarah William Alice Thomas Laura Edward Megan Oliver Claire",
        "hispanic": "Carlos Carmen Miguel Guadalupe Diego Ximena Javier Rosa Alejandro Paola Luis Marisol",
        "arabic": "Ahmed Fatima Omar Layla Khalid Amina Hassan Zahra Yusuf Mariam Mustafa Salma",
        "chinese": "Wei Mei Jun Xiuying Hao Ling Qiang Lihua Feng Yan Jian Fang",
    },
    "validation": {
        "english": "Henry Grace George Helen Samuel Lucy",
        "hispanic": "Jorge Ines Pablo Pilar Mateo Beatriz",
        "arabic": "Ibrahim Samira Tariq Huda Bilal Farida",
        "chinese": "Lei Xiaoli Tao Yanmei Peng Meiling",
    },
    "test": {
        "english": "Jack Charlotte Peter Susan Andrew Hannah Simon Rachel",
        "hispanic": "Fernando Catalina Rafael Consuelo Ricardo Dolores Sergio Esperanza",
        "arabic": "Mahmoud Aisha Karim Rania Abdullah Yasmin Walid Khadija",
        "chinese": "Zhiwei Xiaomei Guoqiang Shufen Haoran Jingyi Mingjie Yuhua",
    },
}

# Words for age; an occupation follows: "the 25-year-old nurse".
AGES: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "young": ("young", "25-year-old"),
        "middle-aged": ("middle-aged", "50-year-old"),
        "old": ("old", "75-year-old"),
    },
    "validation": {"young": ("22-year-old",), "middle-aged": ("46-year-old",), "old": ("71-year-old",)},
    "test": {
        "young": ("29-year-old", "twenty-something"),
        "middle-aged": ("54-year-old", "fifty-something"),
        "old": ("83-year-old", "seventy-something"),
    },
}

# --- fillers: kind -> split -> list ------------------------------------------------------------------------------

# Occupations come in threes: one often thought of as female, one as male, one as neither.
_FILLERS: dict[str, dict[str, str]] = {
    "occupation": {
        "train": """
            nurse, plumber, baker, receptionist, surgeon, accountant, kindergarten teacher, electrician, pharmacist,
            librarian, carpenter, journalist, hairdresser, mechanic, photographer, secretary, firefighter, lawyer,
            florist, pilot, dentist, dental hygienist, software engineer, veterinarian, social worker, truck driver,
            chef, flight attendant, welder, translator, nanny, bricklayer, architect, dietitian, farmer, biologist
        """,
        "validation": """
            speech therapist, roofer, real estate agent, bookkeeper, locksmith, postal worker, housekeeper,
            security guard, musician, cashier, blacksmith, tour guide
        """,
        "test": """
            paralegal, crane operator, sales manager, dressmaker, miner, editor, makeup artist, butcher, bartender,
            wedding planner, civil engineer, physiotherapist, yoga instructor, taxi driver, insurance agent,
            school counselor, sailor, gardener, dance teacher, boxer, optician, nail technician, janitor, novelist
        """,
    },
    "family": {
        "train": """
            baking bread, fixing old bicycles, playing chess, painting landscapes, growing tomatoes, singing in a choir,
            collecting stamps, hiking in the hills, reading mystery novels, sewing clothes, watching football,
            cleaning the house
        """,
        "validation": "walking the dog, learning Spanish, building model trains, knitting scarves",
        "test": """
            playing the piano, fishing, cooking soup, writing letters, repairing furniture, dancing,
            swimming in the lake, telling stories
        """,
    },
    "school": {
        "train": """
            mathematics, history, biology, chemistry, geography, music, physics, art, English, computer science, Latin,
            economics
        """,
        "validation": "literature, gymnastics, statistics, Spanish",
        "test": "French, astronomy, philosophy, drama, woodwork, geometry, needlework, robotics",
    },
    "mathematics": {
        "train": """
            apples, marbles, pencils, stickers, coins, eggs, books, tickets, cookies, flowers, buttons, postcards
        """,
        "validation": "balloons, oranges, playing cards, candles",
        "test": "muffins, bottles, stamps, ribbons, bricks, seashells, bananas, toy cars",
    },
}

FILLERS: dict[str, dict[str, tuple[str, ...]]] = {
    kind: {split: tuple(item.strip() for item in text.split(",")) for split, text in splits.items()}
    for kind, splits in _FILLERS.items()
}
GENDER_TEMPLATES: tuple[Template, ...] = tuple(
    Template(name, kind, text, split)
    for kind, splits in _GENDER_TEMPLATES.items()
    for split, texts in splits.items()
    for name, text in texts.items()
)

PERSON_TEMPLATES: tuple[Template, ...] = tuple(
    Template(name, "person", text, split)
    for split, texts in _PERSON_TEMPLATES.items()
    for name, text in texts.items()
)

# --- combining ------------------------------------------------------------------------------------------------


def with_articles(text: str) -> str:
    """Resolve every ``a/an`` by the sound of the next word.

    Example:
        >>> with_articles("a/an nurse, a/an electrician, a/an usher and A/an hour")
        'a nurse, an electrician, an usher and An hour'
    """

    def article(match: re.Match[str]) -> str:
        an = re.match(r"(?!uni|use\b|user|eu|one\b)[aeiou]|hour|hono|honest|heir", match[2], re.IGNORECASE)
        return f"{match[1]}{'n' if an else ''} {match[2]}"

    return re.sub(r"\b([Aa])/an (\S+)", article, text)


def fill(template: Template, filler: Filler, group: str) -> str:
    """The text of one prompt: a template, a filler and the words of one group.

    Numbers depend on the template and the filler alone, so they are the same in all twins.

    Example:
        >>> fill(GENDER_TEMPLATES[0], Filler("nurse", GENDER_WORDS), "female")
        'She is a nurse. She'
    """
    number = zlib.crc32(f"{template.name}/{filler.name}".encode())
    slots = {"filler": filler.name, "n": 20 + number % 70, "m": 3 + number // 70 % 7}
    return with_articles(template.text.format_map({**filler.words[group], **slots}))


def _interleaved(templates: Sequence[Template]) -> list[Template]:
    """Templates ordered so that any first few hold the kinds in proportion."""
    kinds = [t.kind for t in templates]
    seen: dict[str, int] = {}
    places = []
    for kind in kinds:
        places.append((seen.get(kind, 0) + 0.5) / kinds.count(kind))
        seen[kind] = seen.get(kind, 0) + 1
    return [t for _, t in sorted(zip(places, templates, strict=True), key=lambda pair: pair[0])]


def combine(
    templates: Sequence[Template],
    fillers: Mapping[str, Sequence[Filler]],
    rounds: int,
    split: str,
    cell: str | None = None,
) -> list[BuiltinRow]:
    """Deal fillers to templates, `rounds` different ones to each, every filler of a kind about equally often.

    Args:
        templates: Templates to fill.
        fillers: Kind -> fillers of that kind.
        rounds: Pairs a template; fewer where its kind has fewer fillers.
        split: Split the rows are marked with.
        cell: Cell of the test split, or None.

    Returns:
        Rows, twins next to each other, one round over all templates after another.
    """
    prefix = split if cell is None else f"{split}/{cell.replace(' ', '-')}"
    dealt = dict.fromkeys(fillers, 0)
    count = {kind: sum(t.kind == kind for t in templates) for kind in fillers}
    rows = []
    for round_ in range(rounds):
        for template in _interleaved(templates):
            items, k = fillers[template.kind], dealt[template.kind]
            if round_ >= len(items):
                continue
            dealt[template.kind] += 1
            # Once templates and fillers fall into step, a shift by one avoids repeating a combination.
            filler = items[(k + k // math.lcm(count[template.kind], len(items))) % len(items)]
            pair_id = f"{prefix}/{template.name}/{filler.name.replace(' ', '-')}"
            for group in filler.words:
                text = fill(template, filler, group)
                rows.append(BuiltinRow(text, group, pair_id, filler.topic or template.name, split, cell))
    return rows


def _held_out(
    templates: Sequence[Template],
    fillers: Mapping[str, Mapping[str, Sequence[Filler]]],
    cell: str,
    rounds: tuple[int, int, int, int, int],
) -> list[BuiltinRow]:
    """All splits of a set: nothing of validation in train; of test, neither, the template, or the filler in train.

    `cell` names the test pairs whose filler alone is new; `rounds` are the pairs a template, part by part.
    """
    train, validation, test = ([t for t in templates if t.split == split] for split in SPLITS)
    return [
        *combine(train, fillers["train"], rounds[0], "train"),
        *combine(validation, fillers["validation"], rounds[1], "validation"),
        *combine(test, fillers["test"], rounds[2], "test", "both new"),
        *combine(train, fillers["test"], rounds[3], "test", cell),
        *combine(test, fillers["train"], rounds[4], "test", "new templates"),
    ]


def _gender_rows(groups: Sequence[str]) -> list[BuiltinRow]:
    words = {group: GENDER_WORDS[group] for group in groups}
    fillers = {s: {k: [Filler(f, words) for f in FILLERS[k][s]] for k in FILLERS} for s in SPLITS}
    # Other kinds keep their part of "new occupations": there the hobby, the subject or the thing is new.
    return _held_out(GENDER_TEMPLATES, fillers, "new occupations", (5, 4, 4, 1, 1))


def _name_rows(groups: Sequence[str]) -> list[BuiltinRow]:
    fillers = {}
    for split, origins in NAMES.items():
        casts = []
        for names in zip(*(origins[group].split() for group in groups), strict=True):
            words = dict(zip(groups, map(_person, names), strict=True))
            # Names vary more than templates do: they are what an interval has to count.
            casts.append(Filler(names[0].lower(), words, topic=", ".join(names)))
        fillers[split] = {"person": casts}
    return _held_out(PERSON_TEMPLATES, fillers, "new names", (11, 8, 12, 4, 4))


def _age_rows(groups: Sequence[str]) -> list[BuiltinRow]:
    fillers = {}
    for split, ages in AGES.items():
        casts = []
        for i, job in enumerate(FILLERS["occupation"][split]):
            words = {group: _person(f"the {ages[group][i % len(ages[group])]} {job}") for group in groups}
            casts.append(Filler(job, words))
        fillers[split] = {"person": casts}
    return _held_out(PERSON_TEMPLATES, fillers, "new occupations", (11, 8, 12, 4, 4))


def _person(text: str) -> dict[str, str]:
    return {"person": text, "Person": text[0].upper() + text[1:]}


BUILTIN: dict[str, tuple[tuple[str, ...], Callable[[Sequence[str]], list[BuiltinRow]]]] = {
    "gender": (("male", "female"), _gender_rows),
    "gender_neutral": (("male", "female", "neutral"), _gender_rows),
    "names": (tuple(NAMES["train"]), _name_rows),
    "age": (tuple(AGES["train"]), _age_rows),
}
"""Name of a built-in set -> its groups and the function that writes its rows for some of them."""


# --- prompts about no one -------------------------------------------------------------------------------------

_NEUTRAL_TEXTS = """
The first snow of the winter usually
Water boils at a lower temperature when
To make a simple tomato soup, start by
The Roman road was built so that
In Python, a dictionary is useful because
The moon looks larger near the horizon since
A sharp kitchen knife should always be
The old wooden bridge collapsed after
Most volcanoes are formed when
The printing press changed the world by
Before sunrise, the harbor was
A for loop in C consists of
The main difference between butter and margarine is
Strong winds are expected along the coast, and
The museum's new wing contains
Glass is made from sand that
The train from Vienna was delayed because
Honey can be kept for years if
On the surface of Mars, the temperature
The recipe calls for two cups of flour and
An error message usually means that
The earliest clocks measured time with
Coral reefs are important for
When iron is left in the rain, it
The library's roof is covered with
A good password should contain
The river flooded its banks again, so
Bicycles became popular in cities once
The price of coffee depends on
In a binary search tree, every node
Dark clouds gathered over the valley while
A good bread dough rises because
The telescope was pointed at
Paper was invented in China and later
A balanced breakfast might include
The city council approved a plan to
Electric cars are quieter than
During an eclipse, the sky
The best way to store potatoes is
Deserts are cold at night because
The software update fixes a problem with
Salt lowers the freezing point of water, which
The castle on the hill was once
To prove that the sum is even, note that
Maps from that century often show
Autumn leaves turn red when
The function returns an empty list if
A compass needle points north because
The ferry to the island runs
Rice should be rinsed before cooking to
The bottom of the ocean is
Sound travels faster through steel than
The piano in the hallway needs
Most databases store each record in
Early in spring, the orchard
The label on the back of the package says
Concrete becomes stronger over time as
The longest tunnel in the country connects
Compost is ready to use when
A leap year occurs because
The festival takes place every July and
Batteries lose charge faster in
The ancient temple was rebuilt after
Once the glue has dried, the next step is
"""
NEUTRAL_TEXTS: tuple[str, ...] = tuple(_NEUTRAL_TEXTS.strip().splitlines())


def builtin(name: str = "gender", groups: Sequence[str] | None = None) -> PromptSet:
    """A set of prompts written for this project, with its held-out splits.

    Args:
        name: ``gender``, ``gender_neutral`` (with singular *they*), ``names`` (by perceived origin) or ``age``.
        groups: Some of the set's groups, in the order wanted; all if None.

    Returns:
        Pairs in train, validation and test; the test split has cells (*both new* and two more).

    Raises:
        InputError: If there is no such set or no such group in it.

    Example:
        >>> builtin("age").groups
        ('young', 'middle-aged', 'old')
    """
    if name not in BUILTIN:
        raise InputError(f"{name!r} is no built-in set; there are {_listed(BUILTIN)}; choose one")
    known, rows = BUILTIN[name]
    chosen = tuple(groups or known)
    if strange := [g for g in chosen if g not in known]:
        raise InputError(
            f"group {strange[0]!r} is not in the built-in {name} prompts; choose from {_listed(known)}"
        )
    prompts = tuple(Prompt(r.text, r.group, r.pair_id, r.topic, r.split, r.cell) for r in rows(chosen))
    return PromptSet(prompts, chosen, f"built-in {name} prompts")
