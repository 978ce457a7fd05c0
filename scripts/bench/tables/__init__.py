"""`bench.sh tables`: how well, and how fast, models of tables come out of a file; karp.fit among others.

    command.py      options, turns, what is printed
    sets.py         the sixteen data sets: where they are, what is predicted, by which score
    splits.py       training and test rows, and their files
    contestants.py  from a file to a model and its predictions, in each library as its users would
    tabm_mini.py    the training loop that the tabm package leaves to its users
    scoring.py      scores and errors
    child.py        the process of a contestant
    results.py      the file of results, a line each
    comparing.py    ratios of errors, and paired differences
    picture.py      the comparison as a picture
"""
