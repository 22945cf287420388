"""The questions in words: several wordings of each kind, the last one held out of training."""

from __future__ import annotations

WORDINGS = {
    # The first is what the engine asks for a caption.
    'caption': (
        'Describe what happens in the video.',
        'What changed?',
        'What happened just now?',
        'What just happened?',
    ),
    'view': (
        'What do you see?',
        'Describe the view.',
        'Describe what you see.',
        'What is in view?',
        'What do you see now?',
    ),
    'room': (
        'Which room is this?',
        'What room are you in?',
        'Where are you now?',
        'Which room are you in now?',
    ),
    'side': (
        'On which side is the {thing}?',
        'Is the {thing} left, ahead or right?',
        'Is the {thing} on the left, ahead or on the right?',
        'On what side is the {thing} now?',
    ),
    'colour': (
        'What colour is the {kind}?',
        'Which colour does the {kind} have?',
        'What is the colour of the {kind}?',
        'Which colour is the {kind} now?',
    ),
    'what': ('What is {side}?', 'What do you see {side}?', 'What is now {side}?'),
    'count': (
        'How many objects do you see?',
        'How many objects are in view?',
        'How many objects are there?',
        'How many objects are there now?',
    ),
    'sign': (
        'What number is on the sign?',
        'Which number is on the sign?',
        'What is the number on the sign?',
        'Which number do you see on the sign?',
    ),
    'light': ('Is the light on?', 'Is the light on now?', 'Is the light on in this room?'),
    'door': ('Is the door open?', 'Is the door open now?', 'Is the door open in this room?'),
    'person': ('Is there a person?', 'Do you see a person?', 'Is a person in view?'),
    'where': (
        'Where did you see the {thing}?',
        'Which room had the {thing}?',
        'In which room did you see the {thing}?',
        'In which room was the {thing}?',
    ),
    'seen': (
        'Have you seen {a_thing}?',
        'Did you see {a_thing}?',
        'Was there {a_thing}?',
        'Have you seen {a_thing} so far?',
    ),
    'first': (
        'Which did you see first, the {thing} or the {other}?',
        'What came first, the {thing} or the {other}?',
        'Which was first, the {thing} or the {other}?',
        'What did you see first, the {thing} or the {other}?',
    ),
    'last': (
        'Which did you see last, the {thing} or the {other}?',
        'What came last, the {thing} or the {other}?',
        'Which was last, the {thing} or the {other}?',
        'What did you see last, the {thing} or the {other}?',
    ),
    'first room': (
        'Which room came first?',
        'Which room was the first?',
        'What was the first room?',
        'Which room did you see first?',
    ),
    'room before': (
        'Where were you before this?',
        'Which room was before this one?',
        'Which room came before this one?',
        'Which room were you in before this one?',
    ),
    'rooms': (
        'How many rooms have you seen?',
        'How many rooms so far?',
        'How many rooms did you see?',
        'How many rooms have you seen so far?',
    ),
    'light then': (
        'Was the light on in the {room}?',
        'Was the light in the {room} on?',
        'In the {room}, was the light on?',
        'In the {room}, was the light on then?',
    ),
    'sign then': (
        'What number was on the sign in the {room}?',
        'Which number was on the sign in the {room}?',
        'What was the number on the sign in the {room}?',
        'In the {room}, what number was on the sign?',
    ),
    'person then': (
        'Where did you last see a person?',
        'Which room had a person last?',
        'In which room did you last see a person?',
        'In which room was a person last?',
    ),
}
PRESENT = ('view', 'room', 'side', 'colour', 'what', 'count', 'sign', 'light', 'door', 'person')
MEMORY = tuple(kind for kind in WORDINGS if kind not in (*PRESENT, 'caption'))
