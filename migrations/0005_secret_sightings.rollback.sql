DROP TABLE secret_sightings;
