-- A constraint that was found to hold needs no undoing.
DO 'BEGIN END';
