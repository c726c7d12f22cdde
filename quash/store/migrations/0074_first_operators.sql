-- `quash init` called the holders of the first certificates by one name, although each is to be given to a person of its
-- own: officers could not decide about what the first operator orders (F9, G19).
update operator set person = 'made by quash init as the ' || role where person = 'made by quash init';
